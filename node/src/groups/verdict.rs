//! OpenMLS' errors as our verdicts.

use openmls::framing::errors::MessageDecryptionError;
use openmls::prelude::{ProcessMessageError, StageCommitError, ValidationError};
use sremp_common::id::GroupId;

use super::OpenError;
use crate::store::StoreError;

/// The verdict over a message that OpenMLS refused.
pub(super) fn of(group: GroupId, error: &ProcessMessageError<StoreError>) -> OpenError {
    let invalid = |why| OpenError::Invalid { group, why };
    match error {
        ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(error)) => {
            of_decryption(group, error)
        }
        ProcessMessageError::ValidationError(ValidationError::WrongEpoch) => {
            invalid("another epoch than the envelope's")
        }
        ProcessMessageError::ValidationError(ValidationError::WrongGroupId) => {
            invalid("another group than the envelope's")
        }
        ProcessMessageError::ValidationError(ValidationError::InvalidSignature) => {
            invalid("the sender's signature does not hold")
        }
        ProcessMessageError::ValidationError(_) => invalid("the message breaks a rule of MLS"),
        ProcessMessageError::InvalidCommit(StageCommitError::MissingProposal) => {
            OpenError::Early(group)
        }
        ProcessMessageError::InvalidCommit(StageCommitError::ConfirmationTagMismatch) => {
            invalid("the commit's confirmation tag does not match")
        }
        ProcessMessageError::InvalidCommit(_) => invalid("the commit breaks a rule of MLS"),
        ProcessMessageError::GroupStateError(_) => OpenError::NotMember(group),
        ProcessMessageError::IncompatibleWireFormat => invalid("not encrypted"),
        ProcessMessageError::StorageError(_) => invalid("the state could not be written"),
        ProcessMessageError::LibraryError(_) => invalid("OpenMLS failed"),
        ProcessMessageError::UnauthorizedExternalApplicationMessage
        | ProcessMessageError::UnauthorizedExternalCommitMessage
        | ProcessMessageError::UnsupportedProposalType => invalid("from outside the group"),
    }
}

fn of_decryption(group: GroupId, error: &MessageDecryptionError) -> OpenError {
    let MessageDecryptionError::SecretTreeError(error) = error else {
        return OpenError::Invalid { group, why: "does not decrypt" };
    };
    // OpenMLS does not export this type; its variants are known by their names only.
    match format!("{error:?}").as_str() {
        "SecretReuseError" => OpenError::Duplicate(group),
        "TooDistantInThePast" => OpenError::TooLate(group),
        "TooDistantInTheFuture" => OpenError::Gap(group),
        _ => OpenError::Invalid { group, why: "no key for this message" },
    }
}
