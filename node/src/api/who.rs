//! Whom a word names: an alias, a name or an id, matched exactly, or a unique prefix of an id.
//! `contact:` and `group:` say which of the two is meant. Ambiguity is never settled by guessing.

use super::{ApiError, MAX_WHO};

/// What can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A person.
    Contact,
    /// A group.
    Group,
}

/// Something that a word may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// Contact or group.
    pub kind: Kind,
    /// Id in its text form.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// What the owner calls it.
    pub alias: Option<String>,
    /// What the caller wants to know it by.
    pub value: T,
}

/// Characters of an id that a prefix must have, beyond the role in front of a contact's.
const MIN_PREFIX: usize = 4;
/// What every contact's id begins with.
const CONTACT_ROLE: &str = "sremp1";
/// Candidates that an error lists.
const MAX_LISTED: usize = 8;

/// The one candidate that `word` names. An exact id goes before an alias, and that before a name
/// or a prefix of an id; within one of these, two matches are an error. Names are chosen by others:
/// nobody can take over an id, an alias or a prefix by calling themselves like it.
///
/// # Errors
/// `not_found`, or `usage` with the candidates when the word is ambiguous.
pub fn resolve<T>(
    word: &str,
    wanted: Option<Kind>,
    candidates: impl IntoIterator<Item = Candidate<T>>,
) -> Result<T, ApiError> {
    let (kind, text) = split(word);
    if let (Some(kind), Some(wanted)) = (kind, wanted)
        && kind != wanted
    {
        return Err(ApiError::usage(format!("`{}` is needed here", prefix(wanted))));
    }
    let kind = kind.or(wanted);
    if text.is_empty() || text.len() > MAX_WHO {
        return Err(ApiError::usage("a contact or group is named by 1 to 256 bytes"));
    }
    let mut best: Option<Rank> = None;
    let mut found: Vec<Candidate<T>> = Vec::new();
    for candidate in candidates {
        if kind.is_some_and(|kind| kind != candidate.kind) {
            continue;
        }
        let Some(rank) = rank(text, &candidate) else { continue };
        if best.is_none_or(|best| rank < best) {
            best = Some(rank);
            found.clear();
        }
        if best == Some(rank) {
            found.push(candidate);
        }
    }
    choose(word, kind, found)
}

fn choose<T>(word: &str, kind: Option<Kind>, found: Vec<Candidate<T>>) -> Result<T, ApiError> {
    let several = found.len() > 1;
    if several {
        let listed: Vec<String> = found.iter().take(MAX_LISTED).map(describe).collect();
        let more = if found.len() > MAX_LISTED { ", ..." } else { "" };
        return Err(ApiError::usage(format!(
            "`{word}` could be any of: {}{more}; use an alias or the id",
            listed.join(", ")
        )));
    }
    found.into_iter().next().map(|candidate| candidate.value).ok_or_else(|| {
        ApiError::not_found(match kind {
            Some(Kind::Contact) => {
                format!("no contact is called `{word}`; see them with: sremp contact list")
            }
            Some(Kind::Group) => {
                format!("no group is called `{word}`; see them with: sremp group list")
            }
            None => format!(
                "no contact or group is called `{word}`; see them with: sremp contact list, sremp group list"
            ),
        })
    })
}

/// How well a word fits; the smallest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Id,
    Alias,
    NameOrPrefix,
}

fn rank<T>(text: &str, candidate: &Candidate<T>) -> Option<Rank> {
    if candidate.id.eq_ignore_ascii_case(text) {
        return Some(Rank::Id);
    }
    if candidate.alias.as_deref() == Some(text) {
        return Some(Rank::Alias);
    }
    let lower = text.to_ascii_lowercase();
    let own_part = lower.strip_prefix(CONTACT_ROLE).unwrap_or(&lower);
    let starts = candidate.id.starts_with(&lower)
        || candidate.id.strip_prefix(CONTACT_ROLE).is_some_and(|id| id.starts_with(&lower));
    let is_prefix = own_part.len() >= MIN_PREFIX && starts;
    (is_prefix || candidate.name == text).then_some(Rank::NameOrPrefix)
}

fn split(word: &str) -> (Option<Kind>, &str) {
    for kind in [Kind::Contact, Kind::Group] {
        if let Some(text) = word.strip_prefix(prefix(kind)) {
            return (Some(kind), text);
        }
    }
    (None, word)
}

const fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Contact => "contact:",
        Kind::Group => "group:",
    }
}

fn describe<T>(candidate: &Candidate<T>) -> String {
    let shown = candidate.alias.as_deref().unwrap_or(&candidate.name);
    format!("{}{} ({shown})", prefix(candidate.kind), candidate.id)
}

#[cfg(test)]
mod tests {
    use super::super::ErrorKind;
    use super::*;

    fn people() -> Vec<Candidate<u8>> {
        let one = |kind, id: &str, name: &str, alias: Option<&str>, value| Candidate {
            kind,
            id: id.to_owned(),
            name: name.to_owned(),
            alias: alias.map(str::to_owned),
            value,
        };
        vec![
            one(Kind::Contact, "sremp1qqqqaaaa", "ann", Some("mum"), 1),
            one(Kind::Contact, "sremp1qqqqbbbb", "ann", None, 2),
            one(Kind::Contact, "sremp1zzzzbbbb", "mum", None, 3),
            one(Kind::Group, "00ff00ff", "mum", None, 4),
            one(Kind::Group, "00ff11ff", "club", None, 5),
        ]
    }

    fn code(word: &str, wanted: Option<Kind>) -> ErrorKind {
        resolve(word, wanted, people()).unwrap_err().code
    }

    #[test]
    fn an_alias_is_stronger_than_a_name() {
        assert_eq!(resolve("mum", None, people()), Ok(1));
        assert_eq!(resolve("group:mum", None, people()), Ok(4));
        assert_eq!(resolve("mum", Some(Kind::Group), people()), Ok(4));
    }

    #[test]
    fn ids_and_unique_prefixes() {
        assert_eq!(resolve("sremp1zzzzbbbb", None, people()), Ok(3));
        assert_eq!(resolve("SREMP1ZZZZBBBB", None, people()), Ok(3));
        assert_eq!(resolve("sremp1zzzz", None, people()), Ok(3));
        assert_eq!(resolve("zzzz", None, people()), Ok(3));
        assert_eq!(resolve("00ff1", None, people()), Ok(5));
        assert_eq!(code("sremp1", None), ErrorKind::NotFound, "a role alone is no prefix");
        assert_eq!(code("zzz", None), ErrorKind::NotFound, "too short");
    }

    #[test]
    fn ambiguity_lists_the_candidates() {
        let error = resolve("ann", None, people()).unwrap_err();
        assert_eq!(error.code, ErrorKind::Usage);
        assert!(error.message.contains("contact:sremp1qqqqaaaa (mum)"), "{error}");
        assert!(error.message.contains("contact:sremp1qqqqbbbb (ann)"), "{error}");
        assert_eq!(code("qqqq", None), ErrorKind::Usage);
    }

    #[test]
    fn nobody_takes_over_an_id_by_a_name() {
        let mut all = people();
        for (id, name) in [("sremp1yyyyyyyy", "00ff11ff"), ("sremp1xxxxxxxx", "zzzz")] {
            let (kind, id, name) = (Kind::Contact, id.to_owned(), name.to_owned());
            all.push(Candidate { kind, id, name, alias: None, value: 9 });
        }
        assert_eq!(resolve("00ff11ff", None, all.clone()), Ok(5));
        assert_eq!(resolve("zzzz", None, all).unwrap_err().code, ErrorKind::Usage);
    }

    #[test]
    fn nothing_fits() {
        assert_eq!(code("bob", None), ErrorKind::NotFound);
        assert_eq!(code("", None), ErrorKind::Usage);
        assert_eq!(code("contact:club", None), ErrorKind::NotFound);
        assert_eq!(code("group:club", Some(Kind::Contact)), ErrorKind::Usage);
    }
}
