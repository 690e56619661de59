//! What is claimed of an image against what was found (Images API, formats and safety).

use super::{Flaw, Format, Found, Inspection, Seen, qcow2, vhd};

/// How strictly images are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectionRules {
    /// Whether an image must be of the format that is claimed. If not, only what is dangerous is refused.
    pub require_match: bool,
    /// The kinds of VMDK that may come in, by their `createType`.
    pub vmdk_types: Vec<String>,
    /// Whether an MBR that is not as it should be is accepted.
    pub accept_bad_mbr: bool,
}

impl Default for InspectionRules {
    /// Glance's.
    fn default() -> Self {
        Self {
            require_match: true,
            vmdk_types: ["streamOptimized", "monolithicSparse"]
                .map(str::to_owned)
                .to_vec(),
            accept_bad_mbr: false,
        }
    }
}

/// An image that may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The format that was found; none if it is none that is known.
    pub found: Option<Format>,
    /// The length of the disk in the image, if that can be told.
    pub virtual_size: Option<u64>,
}

/// Why an image may not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is something else.
    #[error("the image is said to be {claimed}, and its bytes are {found}")]
    Mismatch {
        /// What was said.
        claimed: String,
        /// What it is: a format's name, `raw`, or `something else` where that is not looked into.
        found: &'static str,
    },
    /// It can be taken for different things, so that one looks harmless and the other is used.
    #[error("the image can be read as {first} and as {second}")]
    Ambiguous {
        /// One of them.
        first: Format,
        /// Another.
        second: Format,
    },
    /// It is dangerous to who uses it, or damaged so that nobody can tell.
    #[error("the image is not acceptable as {format}: {flaw}")]
    Unsafe {
        /// What it is.
        format: Format,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// Claims that nothing is known to look for.
const WITHOUT_MARK: [&str; 4] = ["ami", "ari", "aki", "ploop"];

impl Inspection {
    /// Judges the image by what is claimed of it: the name of a disk format.
    ///
    /// # Errors
    /// [`Refusal`] if it may not be kept.
    pub fn judge(&self, claimed: &str, rules: &InspectionRules) -> Result<Judgement, Refusal> {
        let found = self.single(claimed, rules)?;
        if let Some(found) = found {
            check(found, rules)?;
        }
        let format = found.map(|found| found.format);
        let virtual_size = match (claimed, found) {
            ("raw", _) => Some(self.bytes),
            (claimed, Some(found)) if found.format.as_str() == claimed => {
                found.disk.as_ref().ok().copied()
            }
            (claimed, None) if is_without_mark(claimed) => None,
            _ if !rules.require_match => None,
            _ => {
                return Err(Refusal::Mismatch {
                    claimed: claimed.to_owned(),
                    found: format.map_or("raw", Format::as_str),
                });
            }
        };
        Ok(Judgement {
            found: format,
            virtual_size,
        })
    }

    /// Returns the one format that the image is in, if it is in any.
    fn single(&self, claimed: &str, rules: &InspectionRules) -> Result<Option<&Found>, Refusal> {
        let has = |format| self.found.iter().any(|found| found.format == format);
        let counts = |found: &&Found| match found.format {
            // A disc that a machine also boots from when it is a disk; and the table of the disk that a fixed VHD is.
            Format::Gpt if has(Format::Iso) => false,
            Format::Gpt if claimed == "vhd" && self.is_fixed_vhd() => false,
            // A kernel begins with a boot sector that has no table, and a RAM disk may have anything there.
            Format::Gpt if matches!(claimed, "aki" | "ari") => false,
            Format::Gpt => found.disk.is_ok() || !rules.accept_bad_mbr,
            _ => true,
        };
        let mut found = self.found.iter().filter(counts);
        let first = found.next();
        match (first, found.next()) {
            (Some(first), Some(second)) => Err(Refusal::Ambiguous {
                first: first.format,
                second: second.format,
            }),
            (first, _) => Ok(first),
        }
    }

    fn is_fixed_vhd(&self) -> bool {
        let is_one = |found: &Found| {
            found.format == Format::Vhd && found.kind.as_deref() == Some(vhd::KIND_FIXED)
        };
        self.found.iter().any(is_one)
    }
}

/// Why an image is refused whatever follows its head: qcow2 and qed are known by it alone, and what else is found in such an
/// image only makes it ambiguous.
pub(super) fn refusal_by_head(
    (claimed, rules): (&str, &InspectionRules),
    seen: &Seen<'_>,
) -> Option<Refusal> {
    let mismatch = |found| Refusal::Mismatch {
        claimed: claimed.to_owned(),
        found,
    };
    match qcow2::look(seen) {
        Some(found) => match check(&found, rules) {
            Err(refusal) => Some(refusal),
            Ok(()) => (rules.require_match && !["raw", found.format.as_str()].contains(&claimed))
                .then(|| mismatch(found.format.as_str())),
        },
        None => (rules.require_match && claimed == Format::Qcow2.as_str())
            .then(|| mismatch("something else")),
    }
}

/// Refuses what is dangerous whatever was claimed.
fn check(found: &Found, rules: &InspectionRules) -> Result<(), Refusal> {
    let refused = |flaw| Refusal::Unsafe {
        format: found.format,
        flaw,
    };
    if let Err(flaw) = &found.disk {
        return Err(refused(flaw.clone()));
    }
    match &found.kind {
        Some(kind) if found.format == Format::Vmdk && !rules.vmdk_types.contains(kind) => {
            let expected = rules.vmdk_types.join(" or ");
            let text = format!("its createType is {kind:?}, expected {expected}");
            Err(refused(Flaw::new(text)))
        }
        _ => Ok(()),
    }
}

/// Whether nothing is known to look for in an image of that format: one of the old Amazon and Parallels formats, or one that
/// only the configuration knows.
fn is_without_mark(claimed: &str) -> bool {
    const KNOWN: [Format; 9] = [
        Format::Qcow2,
        Format::Qed,
        Format::Vhd,
        Format::Vhdx,
        Format::Vmdk,
        Format::Vdi,
        Format::Iso,
        Format::Gpt,
        Format::Luks,
    ];
    WITHOUT_MARK.contains(&claimed) || KNOWN.iter().all(|format| format.as_str() != claimed)
}
