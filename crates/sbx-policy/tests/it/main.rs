//! Facts about the policy: parsing, decisions, presets, explanations.
