//! An operator's rules: any text is read or refused, what was read can be asked, and written out it means the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use tegula_domain::Caller;
use tegula_domain::policy::Policy;
use tegula_domain::protection::{Format, PropertyOperation, Protection};

/// The callers that rules are tried on.
fn callers() -> [Caller; 3] {
    [
        Caller::anonymous(),
        Caller::new("u", "p", ["member"]).with_service_roles(["service"]),
        Caller::new("u", "p", ["admin"]),
    ]
}

/// Tries a policy: every line is a name and a text, a colon between them.
pub fn policy(bytes: &[u8]) {
    let file = String::from_utf8_lossy(bytes);
    let texts: BTreeMap<String, String> = file
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    let Ok(policy) = Policy::new(&texts) else {
        return;
    };
    let written = policy
        .texts()
        .map(|(name, text)| (name.to_owned(), text))
        .collect();
    let again = Policy::new(&written).unwrap();
    let target = BTreeMap::from([("project_id".to_owned(), "p".to_owned())]);
    for caller in callers() {
        for name in written.keys() {
            assert_eq!(
                policy.allows_named(name, &caller, &target),
                again.allows_named(name, &caller, &target),
                "{name}"
            );
        }
    }
}

/// Tries a property protection file in both formats, and every word in it as a property's name.
pub fn protection(bytes: &[u8]) {
    let file = String::from_utf8_lossy(bytes);
    let formats = [
        Format::Roles,
        Format::Policies(Arc::new(Policy::defaults())),
    ];
    for format in formats {
        let Ok(protection) = Protection::parse(&file, &format) else {
            continue;
        };
        for caller in callers() {
            for name in file.split_whitespace().take(64) {
                let image = BTreeMap::from([(name.to_owned(), "value".to_owned())]);
                let seen = protection.readable(&caller, &image).len() == 1;
                assert_eq!(seen, protection.may_filter(&caller, name), "{name}");
                assert!(!seen || protection.may(&caller, PropertyOperation::Read, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn the_first_seeds_are_read() {
        for seed in &seeds::protection()[..3] {
            let text = std::str::from_utf8(seed).unwrap();
            let roles = Protection::parse(text, &Format::Roles);
            assert!(roles.is_ok(), "{text}: {roles:?}");
        }
        for seed in &seeds::policy()[..3] {
            let texts = std::str::from_utf8(seed).unwrap().lines();
            let texts = texts.map(|line| line.split_once(": ").unwrap());
            let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
            let policy = Policy::new(&texts.collect());
            assert!(policy.is_ok(), "{policy:?}");
        }
    }
}
