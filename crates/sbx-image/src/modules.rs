//! Which kernel modules to load in which order, from what `depmod` wrote (modules.dep(5)).

use std::collections::{BTreeMap, BTreeSet};

/// `modules.dep` and `modules.builtin` of one kernel.
pub(crate) struct Modules<'a> {
    /// Path and dependencies by canonical name.
    loadable: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    builtin: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// Parses both files.
    pub(crate) fn parse(dep: &'a str, builtin: &'a str) -> Self {
        let loadable = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (name_of(path), (path, needs.split_whitespace().collect())))
            .collect();
        Self {
            loadable,
            builtin: builtin.lines().map(name_of).collect(),
        }
    }

    /// Whether the kernel has `name`, built in or as a module.
    pub(crate) fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.builtin.contains(&name) || self.loadable.contains_key(&name)
    }

    /// Paths of `names` and all they depend on, each once, every module behind what it needs. What is built
    /// in drops out; `Err` gives the first name that the kernel does not have.
    pub(crate) fn load_order<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            self.visit(&canonical(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    /// Depth first: what is needed comes out first. `seen` also ends circles.
    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<&'a str>,
    ) -> Result<(), String> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let (path, needs) = self.loadable.get(name).ok_or_else(|| name.to_owned())?;
        // depmod lists direct and indirect needs, those to be loaded first last.
        for need in needs.iter().rev() {
            self.visit(&name_of(need), seen, order)?;
        }
        order.push(path);
        Ok(())
    }
}

/// Module name of a path such as `kernel/drivers/char/hw_random/virtio-rng.ko.xz`.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split('.').next().unwrap_or(file))
}

/// The kernel treats `-` and `_` in module names alike.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/block/virtio_blk.ko:\n\
        kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz\n\
        kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n\
        kernel/net/core/failover.ko.xz:\n\
        kernel/drivers/char/hw_random/virtio-rng.ko:\n\
        kernel/fs/a.ko: kernel/fs/b.ko\n\
        kernel/fs/b.ko: kernel/fs/a.ko\n";
    const BUILTIN: &str = "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n";

    fn order(names: &[&str]) -> Result<Vec<String>, String> {
        let modules = Modules::parse(DEP, BUILTIN);
        modules
            .load_order(names.iter().copied())
            .map(|paths| paths.into_iter().map(name_of).collect())
    }

    #[test]
    fn needed_modules_come_first_and_once() {
        assert_eq!(
            order(&["virtio_net", "virtio_blk", "failover"]).unwrap(),
            ["failover", "net_failover", "virtio_net", "virtio_blk"]
        );
    }

    #[test]
    fn built_in_modules_drop_out_and_dashes_do_not_matter() {
        assert_eq!(
            order(&["ext4", "virtio_pci", "virtio_rng"]).unwrap(),
            ["virtio_rng"]
        );
        assert!(Modules::parse(DEP, BUILTIN).has("virtio-pci"));
    }

    #[test]
    fn unknown_module_is_named_and_a_circle_ends() {
        assert_eq!(
            order(&["virtio_blk", "nonesuch"]),
            Err("nonesuch".to_owned())
        );
        assert_eq!(order(&["a"]).unwrap().len(), 2);
    }
}
