//! `tegulad token`: a new token, and what to put into the configuration for it.

use std::io::{self, Write};

use tegula_identity::NewToken;

/// Makes a token and prints it, then its entry.
///
/// # Errors
/// If there is no randomness, or standard output is gone.
pub(crate) fn make(user: &str, project: &str, roles: &[String]) -> io::Result<()> {
    let token =
        NewToken::generate().ok_or_else(|| io::Error::other("the system gives no randomness"))?;
    let mut output = io::stdout().lock();
    writeln!(
        output,
        "# The token, for {user} alone; it is not shown again: {}",
        token.reveal()
    )?;
    writeln!(output, "{}", entry(&token, user, project, roles))?;
    output.flush()
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
