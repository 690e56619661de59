//! Files on a disk, as an operator writes them.

use super::*;
use tegula_domain::protection::PropertyOperation;
use tempfile::TempDir;

struct Files {
    folder: TempDir,
    files: RuleFiles,
}

impl Files {
    fn new(policy: &str, protection: &str, format: ProtectionFormat) -> Self {
        let folder = TempDir::new().unwrap();
        let files = RuleFiles {
            policy: Some(folder.path().join("policy.yaml")),
            protection: Some((folder.path().join("protection.conf"), format)),
        };
        let made = Self { folder, files };
        made.write("policy.yaml", policy);
        made.write("protection.conf", protection);
        made
    }

    /// Writes a file in place.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// What is said of the files, without their folder.
    fn said(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn refused(&self) -> String {
        match self.files.load() {
            Err(error) => self.said(&error.to_string()),
            Ok(_) => panic!("accepted"),
        }
    }
}

fn policy_refused(text: impl AsRef<[u8]>) -> String {
    let files = Files::new("", "", ProtectionFormat::Roles);
    std::fs::write(files.folder.path().join("policy.yaml"), text).unwrap();
    files.refused()
}

const PROTECTION: &str = "[^x_]\ncreate = billing\nread = @\nupdate = billing\ndelete = !\n";

fn caller(roles: &[&str]) -> Caller {
    Caller::new("u", "p", roles)
}

#[test]
fn without_files_the_defaults_are_in_force() {
    let loaded = RuleFiles::default().load().unwrap();
    assert!(loaded.warnings.is_empty());
    assert_eq!(*loaded.rules.policy, Policy::defaults());
    assert!(
        loaded
            .rules
            .protection
            .may(&caller(&[]), PropertyOperation::Delete, "x_a")
    );
}

#[test]
fn both_files_are_read_together() {
    let policy = r#"
# What members may do besides.
"copy_image": "rule:context_is_admin or role:copier"   # JSON's quotes are YAML's
billing: >-
    role:billing
    and not role:guest
get_imges: '!'
"#;
    let files = Files::new(policy, PROTECTION, ProtectionFormat::Policies);
    let loaded = files.files.load().unwrap();
    assert!(
        loaded
            .rules
            .policy
            .allows(Rule::CopyImage, &caller(&["copier"]), &())
    );
    for (roles, may) in [
        (&["billing"][..], true),
        (&["billing", "guest"], false),
        (&["copier"], false),
    ] {
        assert_eq!(
            loaded
                .rules
                .protection
                .may(&caller(roles), PropertyOperation::Create, "x_a"),
            may
        );
    }
    assert_eq!(
        loaded
            .warnings
            .iter()
            .map(|warning| files.said(warning))
            .collect::<Vec<_>>(),
        ["policy.yaml: nothing asks for rule get_imges: is it misspelt?"]
    );
}

#[test]
fn a_policy_that_says_nothing_changes_nothing() {
    for empty in [
        "",
        "# all of it is a comment\n",
        "---\n",
        "{}\n",
        "null\n",
        "---\n...\n",
    ] {
        let files = Files::new(empty, PROTECTION, ProtectionFormat::Roles);
        let loaded = files
            .files
            .load()
            .unwrap_or_else(|error| panic!("{empty:?}: {error}"));
        assert_eq!(*loaded.rules.policy, Policy::defaults());
    }
    let json = Files::new(
        r#"{"get_image": "", "copy_image": "@"}"#,
        PROTECTION,
        ProtectionFormat::Roles,
    );
    assert!(
        json.files
            .load()
            .unwrap()
            .rules
            .policy
            .allows(Rule::CopyImage, &caller(&[]), &())
    );
}

#[test]
fn what_yaml_would_make_of_a_rule_that_was_not_meant_so_is_refused_by_line() {
    for (text, expected) in [
        (
            "a: '@'\nget_image:\n",
            "policy.yaml: line 2: rule get_image has no text: write \"\" if everyone may, \"!\" if no one may",
        ),
        (
            "get_image: ~\n",
            "policy.yaml: line 1: rule get_image has no text: write \"\" if everyone may, \"!\" if no one may",
        ),
        (
            "get_image: !\n",
            "policy.yaml: line 1: a tag, which is not supported: write \"!\" in quotes if it was meant to be no one",
        ),
        (
            "get_image: true\n",
            "policy.yaml: line 1: `true` is no text as the text of rule get_image: write it in quotes",
        ),
        (
            "get_image: 1.5\n",
            "policy.yaml: line 1: `1.5` is no text as the text of rule get_image: write it in quotes",
        ),
        (
            "no: '@'\n",
            "policy.yaml: line 1: `no` is no text as the name of a rule: write it in quotes",
        ),
        (
            "a: '@'\nb: '@'\na: '!'\n",
            "policy.yaml: line 3: rule a stands in line 1 already",
        ),
        (
            "a: &x '@'\nb: *x\n",
            "policy.yaml: line 1: an anchor or an alias, which is not supported",
        ),
        (
            "a: [['role:a']]\n",
            "policy.yaml: line 1: rule a is a list, which is not supported: write its text with `and` and `or`",
        ),
        ("a: {b: c}\n", "policy.yaml: line 1: rule a has no text"),
        (
            "? [a]\n: b\n",
            "policy.yaml: line 1: expected the name of a rule",
        ),
        (
            "- a\n",
            "policy.yaml: line 1: expected `NAME: TEXT`, the name of a rule and its text",
        ),
        (
            "role:admin\n",
            "policy.yaml: line 1: expected `NAME: TEXT`, the name of a rule and its text",
        ),
        (
            "a: '@'\n---\nb: '@'\n",
            "policy.yaml: line 2: a second document begins",
        ),
    ] {
        assert_eq!(policy_refused(text), expected, "{text}");
    }
    // What the parser itself refuses, in its words.
    for (text, line) in [
        ("get_image: @\n", 1),
        ("a: '@'\n\tb: '@'\n", 2),
        ("a: 'x\n", 1),
    ] {
        let said = policy_refused(text);
        assert!(
            said.starts_with(&format!("policy.yaml: line {line}: this is not YAML: ")),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_policy_is_refused_by_line_rule_and_character() {
    for (text, expected) in [
        (
            "a: '@'\nget_image: role:a or rule:nobody\n",
            "policy.yaml: line 2: rule get_image, at character 16: there is no rule nobody",
        ),
        (
            "a: rule:b\nb: rule:a\n",
            "policy.yaml: line 1: rule a, at character 6: it refers to itself: a → b → a",
        ),
        (
            "\n\na: role:b, role:c\n",
            "policy.yaml: line 3: rule a, at character 9: expected `and`, `or` or the end, found `role:c`",
        ),
    ] {
        assert_eq!(policy_refused(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_text_of_reasonable_length_is_refused() {
    assert_eq!(
        policy_refused(b"a: \xff\n"),
        "policy.yaml: byte 3 is not UTF-8"
    );
    assert_eq!(
        policy_refused(vec![b'#'; (1 << 20) + 1]),
        "policy.yaml: it is longer than 1048576 bytes"
    );
    let files = Files::new("", PROTECTION, ProtectionFormat::Roles);
    std::fs::remove_file(files.folder.path().join("protection.conf")).unwrap();
    assert_eq!(files.refused(), "protection.conf: it cannot be read");
}

#[test]
fn a_protection_file_is_refused_by_line() {
    let files = Files::new("", "[(]\n", ProtectionFormat::Roles);
    assert_eq!(
        files.refused(),
        "protection.conf: line 1: the pattern `(` is no regular expression: unclosed group"
    );
    // Rules that it names must be in the policy beside it.
    files.write("protection.conf", PROTECTION);
    assert!(files.files.load().is_ok());
    let policies = RuleFiles {
        protection: files
            .files
            .protection
            .clone()
            .map(|(path, _)| (path, ProtectionFormat::Policies)),
        ..files.files.clone()
    };
    let error = policies.load().unwrap_err().to_string();
    assert_eq!(
        files.said(&error),
        "protection.conf: line 2: the policy has no rule billing"
    );
}

#[test]
fn a_change_is_read_once_it_has_settled() {
    let files = Files::new(
        "copy_image: role:old\n",
        PROTECTION,
        ProtectionFormat::Roles,
    );
    let (loaded, mut watch) = RuleWatch::start(files.files.clone()).unwrap();
    let allows = |loaded: &LoadedRules, role| {
        loaded
            .rules
            .policy
            .allows(Rule::CopyImage, &caller(&[role]), &())
    };
    assert!(allows(&loaded, "old"));
    assert!(watch.poll().is_none() && watch.poll().is_none());

    // Written in two steps, and asked between them: the half is not read.
    files.write("policy.yaml", "");
    assert!(watch.poll().is_none());
    files.write("policy.yaml", "copy_image: role:new\n");
    assert!(watch.poll().is_none());
    let loaded = watch.poll().unwrap().unwrap();
    assert!(allows(&loaded, "new") && !allows(&loaded, "old"));
    assert!(watch.poll().is_none());

    // Put in place of the old one, as careful editors do.
    files.write("new.yaml", "copy_image: role:old\n");
    std::fs::rename(
        files.folder.path().join("new.yaml"),
        files.folder.path().join("policy.yaml"),
    )
    .unwrap();
    assert!(watch.poll().is_none());
    assert!(allows(&watch.poll().unwrap().unwrap(), "old"));
}

#[test]
fn what_is_wrong_is_told_once_and_mended_by_the_next_change() {
    let files = Files::new("", PROTECTION, ProtectionFormat::Roles);
    let (_, mut watch) = RuleWatch::start(files.files.clone()).unwrap();
    files.write("protection.conf", "[^x_]\n");
    assert!(watch.poll().is_none());
    assert!(matches!(
        watch.poll(),
        Some(Err(RulesError::Protection { .. }))
    ));
    assert!(watch.poll().is_none() && watch.poll().is_none());
    std::fs::remove_file(files.folder.path().join("protection.conf")).unwrap();
    assert!(watch.poll().is_none());
    assert!(matches!(watch.poll(), Some(Err(RulesError::Read { .. }))));
    files.write("protection.conf", PROTECTION);
    assert!(watch.poll().is_none());
    assert!(matches!(watch.poll(), Some(Ok(_))));
    assert!(watch.poll().is_none());
    // Whoever insists has it read in any case.
    assert!(watch.reload().is_ok());
}
