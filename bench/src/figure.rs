//! One figure, beside a peer's where there is one.

use serde::Serialize;

/// Medians of one run side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What was measured, e.g. `cold_create_exec_s`.
    metric: String,
    /// Unit, e.g. `s`, `MiB/s`.
    unit: &'static str,
    /// Our median.
    ours: f64,
    /// The peer's median; `null` where the figure stands alone.
    peer: Option<f64>,
    /// Which peer.
    peer_name: Option<&'static str>,
    /// Ours by peer.
    ratio: Option<f64>,
    /// Measurements behind each median.
    runs: usize,
}

impl Figure {
    /// A figure from the measurements, in the unit.
    pub(crate) fn new(
        metric: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        peer: &[f64],
        peer_name: &'static str,
    ) -> Self {
        let (our_median, peer_median) = (median(ours), median(peer));
        Self {
            peer: Some(round(peer_median)),
            peer_name: Some(peer_name),
            ratio: Some(round(our_median / peer_median)),
            runs: ours.len().min(peer.len()),
            ..Self::alone(metric, unit, ours)
        }
    }

    /// A figure that no peer has.
    pub(crate) fn alone(metric: impl Into<String>, unit: &'static str, ours: &[f64]) -> Self {
        Self {
            metric: metric.into(),
            unit,
            ours: round(median(ours)),
            peer: None,
            peer_name: None,
            ratio: None,
            runs: ours.len(),
        }
    }

    /// The first of this metric.
    pub(crate) fn find<'a>(figures: &'a [Self], metric: &str) -> Option<&'a Self> {
        figures.iter().find(|figure| figure.metric == metric)
    }

    /// The same measurements beside what they should be with KVM.
    pub(crate) fn beside_target(&self, target: f64) -> Self {
        Self {
            metric: format!("{}_kvm", self.metric),
            peer: Some(target),
            peer_name: Some("target"),
            ratio: Some(round(self.ours / target)),
            ..self.clone()
        }
    }

    /// The line to print.
    pub(crate) fn line(&self, json: bool) -> String {
        if json {
            return serde_json::to_string(self).unwrap_or_default();
        }
        let ours = format!("{:<26} {:>10.3} {:<6}", self.metric, self.ours, self.unit);
        match (self.peer_name, self.peer, self.ratio) {
            (Some(name), Some(peer), Some(ratio)) => {
                format!(
                    "{ours} {name} {peer:.3} ratio {ratio:.3} ({} runs)",
                    self.runs
                )
            }
            _ => format!("{ours} ({} runs)", self.runs),
        }
    }
}

/// The middle measurement (the mean of the two middle ones); NaN without any.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (1, Some(value)) => *value,
        (0, Some(value)) => f64::midpoint(sorted[middle - 1], *value),
        _ => f64::NAN,
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_and_the_ratio_is_ours_by_peer() {
        let figure = Figure::new("m", "s", &[3.0, 1.0, 2.0], &[4.0, 4.0, 5.0, 3.0], "podman");
        assert_eq!(
            (figure.ours, figure.peer, figure.ratio, figure.runs),
            (2.0, Some(4.0), Some(0.5), 3)
        );
        let json: serde_json::Value = serde_json::from_str(&figure.line(true)).unwrap();
        assert_eq!(json["peer_name"], "podman");
    }

    #[test]
    fn a_figure_without_a_peer_has_all_fields_all_the_same() {
        let figure = Figure::alone("m", "ms", &[1.0, 2.0]);
        let json: serde_json::Value = serde_json::from_str(&figure.line(true)).unwrap();
        assert_eq!(json["ours"], 1.5);
        assert!(json["peer"].is_null() && json["peer_name"].is_null() && json["ratio"].is_null());
    }

    #[test]
    fn a_figure_beside_its_target_keeps_the_measurements_under_another_name() {
        let figures = [
            Figure::alone("m", "s", &[0.5, 0.5]),
            Figure::alone("n", "s", &[9.0]),
        ];
        let beside = Figure::find(&figures, "m").unwrap().beside_target(0.25);
        assert_eq!(
            beside
                .line(false)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            "m_kvm 0.500 s target 0.250 ratio 2.000 (2 runs)"
        );
        assert!(Figure::find(&figures, "o").is_none());
    }
}
