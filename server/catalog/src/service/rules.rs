//! What the use cases ask: the policy and the property protection, as they were last read.

use tegula_domain::policy::{ImageTarget, Policy, Rule};
use tegula_domain::protection::Protection;
use tegula_domain::{Caller, Image};

/// Policy and property protection, read together.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Who may do what.
    pub policy: Policy,
    /// Which properties who may do what with.
    pub protection: Protection,
}

impl Rules {
    /// Whether the policy gives the caller the right to do this to an image; `member` is the project whose membership of
    /// it counts: the caller's own, where it is a member, or the one that the rule is asked about.
    pub fn allows(&self, rule: Rule, caller: &Caller, image: &Image, member: Option<&str>) -> bool {
        self.policy
            .allows(rule, caller, &ImageTarget::new(image, member))
    }
}
