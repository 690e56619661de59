//! `tegulad token`: a new token, and what to put into the configuration for it.

use std::error::Error;
use std::io::{self, Write};

use tegula_identity::NewToken;

use crate::config::{ConfigError, TokenEntry};
use crate::identity;

/// The roles that the default policy speaks of, and those that imply others.
const KNOWN_ROLES: [&str; 5] = ["admin", "manager", "member", "reader", "service"];

/// Makes a token and prints it, then its entry. Returns what the operator should look at.
///
/// # Errors
/// If the entry would be refused in a configuration, there is no randomness, or standard output is gone.
pub(crate) fn make(
    user: &str,
    project: &str,
    roles: &[String],
) -> Result<Vec<String>, Box<dyn Error>> {
    let token =
        NewToken::generate().ok_or_else(|| io::Error::other("the system gives no randomness"))?;
    let made = TokenEntry {
        sha256: token.hash().to_string(),
        user: user.to_owned(),
        project: project.to_owned(),
        roles: roles.to_vec(),
    };
    identity::check_entry(&made).map_err(|text| ConfigError::value("identity.tokens", text))?;
    let mut output = io::stdout().lock();
    writeln!(
        output,
        "# The token, for {user} alone; it is not shown again: {}",
        token.reveal()
    )?;
    writeln!(output, "{}", entry(&token, user, project, roles))?;
    output.flush()?;
    Ok(unknown_roles(roles))
}

/// Roles may be an operator's own, for rules of its own; others are misspelt.
fn unknown_roles(roles: &[String]) -> Vec<String> {
    let known = KNOWN_ROLES.join(", ");
    roles
        .iter()
        .filter(|role| !KNOWN_ROLES.contains(&role.trim().to_lowercase().as_str()))
        .map(|role| {
            format!("no rule knows the role `{role}`, unless one of your own does: the default policy speaks of {known}")
        })
        .collect()
}

/// The entry of the configuration.
fn entry(token: &NewToken, user: &str, project: &str, roles: &[String]) -> String {
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let roles: Vec<String> = roles.iter().map(|role| text(role)).collect();
    format!(
        "[[identity.tokens]]\nsha256 = {}\nuser = {}\nproject = {}\nroles = [{}]",
        text(&token.hash().to_string()),
        text(user),
        text(project),
        roles.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn roles_that_no_default_rule_knows_are_pointed_out() {
        let roles = ["Member", "membr", "service", "auditor"].map(str::to_owned);
        let warnings = unknown_roles(&roles);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("`membr`") && warnings[1].contains("`auditor`"));
    }

    #[test]
    fn an_entry_that_would_be_refused_is_not_made() {
        for (user, project, role) in [
            ("", "p", "member"),
            ("u", "", "member"),
            ("u", "p", "member,reader"),
            ("u", "p", ""),
        ] {
            assert!(
                make(user, project, &[role.to_owned()]).is_err(),
                "{user} {project} {role}"
            );
        }
    }

    #[test]
    fn the_entry_is_one_of_the_configuration_whatever_the_names() {
        let token = NewToken::generate().unwrap();
        let (user, project) = ("o'hara \"\\ ü\n", "]\n[listen]");
        let roles = ["member".to_owned(), "a\"b".to_owned()];
        let config: Config = toml::from_str(&entry(&token, user, project, &roles)).unwrap();
        let [entry] = &config.identity.tokens[..] else {
            panic!("one entry")
        };
        assert_eq!(
            (entry.user.as_str(), entry.project.as_str()),
            (user, project)
        );
        assert_eq!(entry.roles, roles);
        assert_eq!(entry.sha256, token.hash().to_string());
    }
}
