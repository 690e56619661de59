//! Numbers out of bytes that nobody vouches for.

use super::Flaw;

/// Returns `length` bytes from `at`.
///
/// # Errors
/// If there are not as many.
pub(super) fn part(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Flaw> {
    at.checked_add(length)
        .and_then(|end| bytes.get(at..end))
        .ok_or_else(|| {
            let have = bytes.len();
            Flaw::new(format!(
                "it ends in its header: {length} bytes expected at byte {at}, and {have} are there"
            ))
        })
}

/// Returns the little-endian number of `length` bytes from `at`; at most 8.
pub(super) fn little(bytes: &[u8], at: usize, length: usize) -> Result<u64, Flaw> {
    let digits = part(bytes, at, length)?.iter().rev();
    Ok(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Returns the big-endian number of `length` bytes from `at`; at most 8.
pub(super) fn big(bytes: &[u8], at: usize, length: usize) -> Result<u64, Flaw> {
    let digits = part(bytes, at, length)?.iter();
    Ok(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Narrows a number that was checked to be small; one that was not becomes a place where nothing is.
pub(super) fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Refuses a field whose value does not fulfil a condition.
pub(super) fn expect(
    holds: bool,
    field: &str,
    found: impl std::fmt::Display,
    expected: &str,
) -> Result<(), Flaw> {
    match holds {
        true => Ok(()),
        false => Err(Flaw::new(format!(
            "{field} is {found}, expected {expected}"
        ))),
    }
}
