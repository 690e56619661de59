//! Tokens that the configuration names: for a catalog without a Keystone.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tegula_domain::Caller;

use crate::error::{Flaw, IdentityError};
use crate::presented::Presented;

/// What every token that is made here begins with, so that people and scanners recognise one that leaked.
const PREFIX: &str = "tegula_";

/// The roles that Keystone's bootstrap makes, each of which implies the ones after it.
const HIERARCHY: [&str; 4] = ["admin", "manager", "member", "reader"];

/// The role that a service needs to speak on behalf of others.
const SERVICE_ROLE: &str = "service";

/// SHA-256 of a token. A token has 256 random bits, so a fast hash keeps it: there is nothing to guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// A text is not the hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the SHA-256 of a token: expected 64 hexadecimal digits")]
pub struct NotATokenHash;

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

impl FromStr for TokenHash {
    type Err = NotATokenHash;

    fn from_str(text: &str) -> Result<Self, NotATokenHash> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotATokenHash);
        }
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotATokenHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotATokenHash)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

/// A token that was just made: shown to its owner once, kept as its hash.
#[derive(Clone)]
pub struct NewToken {
    token: String,
}

impl NewToken {
    /// Makes one of 256 random bits from the system; `None` if the system gives none.
    pub fn generate() -> Option<Self> {
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).ok()?;
        let mut token = String::from(PREFIX);
        for byte in random {
            token.push_str(&format!("{byte:02x}"));
        }
        Some(Self { token })
    }

    /// The token.
    pub fn reveal(&self) -> &str {
        &self.token
    }

    /// What to keep of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.token)
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewToken({})", self.hash())
    }
}

/// A token of the configuration, and who has it.
#[derive(Debug, Clone)]
pub struct StaticToken {
    hash: TokenHash,
    caller: Caller,
}

impl StaticToken {
    /// Gives the token with this hash to a user of a project.
    ///
    /// Roles imply others as in a Keystone right after its bootstrap: admin, manager, member, reader, each the ones after it.
    pub fn new<R: AsRef<str>>(
        hash: TokenHash,
        user: &str,
        project: &str,
        roles: impl IntoIterator<Item = R>,
    ) -> Self {
        Self {
            hash,
            caller: Caller::new(user, project, with_implied(roles)),
        }
    }

    /// Who has it.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

fn with_implied<R: AsRef<str>>(roles: impl IntoIterator<Item = R>) -> Vec<String> {
    let mut all: Vec<String> = roles
        .into_iter()
        .map(|role| role.as_ref().to_lowercase())
        .collect();
    let highest = HIERARCHY
        .iter()
        .position(|role| all.iter().any(|own| own.trim() == *role));
    all.extend(
        HIERARCHY
            .iter()
            .skip(highest.unwrap_or(HIERARCHY.len()))
            .map(|role| (*role).to_owned()),
    );
    all
}

/// The tokens of the configuration.
#[derive(Debug, Clone)]
pub struct StaticTokens {
    tokens: Vec<StaticToken>,
}

impl StaticTokens {
    /// Takes the tokens. Of two with the same hash, the last holds.
    pub fn new(tokens: Vec<StaticToken>) -> Self {
        Self { tokens }
    }

    /// Who has a token, and which roles has the service that speaks on the caller's behalf, if one does.
    ///
    /// # Errors
    /// [`Flaw::ServiceToken`] if a service's token is presented that is none of these, [`Flaw::ServiceRole`] if it is not a
    /// service's: nobody adds the roles of one token to those of another.
    pub(crate) fn identify(
        &self,
        token: &str,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, IdentityError> {
        let Some(caller) = self.find(token) else {
            return Ok(None);
        };
        let Some(service_token) = presented.service_token()? else {
            return Ok(Some(caller.clone()));
        };
        let service = self
            .find(service_token)
            .ok_or(IdentityError::Invalid(Flaw::ServiceToken))?;
        if !service.has_role(SERVICE_ROLE) {
            return Err(IdentityError::Invalid(Flaw::ServiceRole));
        }
        Ok(Some(caller.clone().with_service_roles(service.roles())))
    }

    /// Who has a token. Looks at every one, whichever it is: the time tells nothing of which hashes come close.
    fn find(&self, token: &str) -> Option<&Caller> {
        let presented = TokenHash::of(token);
        let mut found = u64::MAX;
        for (index, known) in (0u64..).zip(&self.tokens) {
            let same: Choice = known.hash.0.ct_eq(&presented.0);
            found.conditional_assign(&index, same);
        }
        self.tokens
            .get(usize::try_from(found).ok()?)
            .map(StaticToken::caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash() {
        let (alice, bob) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
        assert_ne!(alice.reveal(), bob.reveal());
        let tokens = StaticTokens::new(vec![
            StaticToken::new(alice.hash(), "alice", "p1", ["member"]),
            StaticToken::new(bob.hash(), "bob", "p2", ["reader"]),
        ]);
        assert_eq!(
            tokens.find(alice.reveal()),
            Some(&Caller::new("alice", "p1", ["member", "reader"]))
        );
        assert_eq!(
            tokens.find(bob.reveal()),
            Some(&Caller::new("bob", "p2", ["reader"]))
        );
        assert_eq!(
            tokens.find(&alice.hash().to_string()),
            None,
            "the hash is not the token"
        );
        assert_eq!(tokens.find(&alice.reveal()[1..]), None);
        assert!(!format!("{alice:?}").contains(alice.reveal()));
    }

    #[test]
    fn a_hash_is_what_sha256sum_says() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of("abc").to_string(), known);
        assert_eq!(known.to_uppercase().parse(), Ok(TokenHash::of("abc")));
        for bad in [
            "",
            "abc",
            &known[1..],
            &format!("{known}0"),
            &known.replace('b', "+"),
            &known.replace("ba", "é"),
        ] {
            assert_eq!(bad.parse::<TokenHash>(), Err(NotATokenHash), "{bad}");
        }
    }

    #[test]
    fn roles_imply_the_lower_ones() {
        for (given, expected) in [
            (
                &["admin"][..],
                &["admin", "manager", "member", "reader"][..],
            ),
            (&["Member", "creator"], &["creator", "member", "reader"]),
            (&["service"], &["service"]),
            (&["reader", "manager"], &["manager", "member", "reader"]),
            (&[], &[]),
        ] {
            let token = StaticToken::new(TokenHash::of("t"), "u", "p", given);
            assert_eq!(token.caller().roles().collect::<Vec<_>>(), expected);
        }
    }
}
