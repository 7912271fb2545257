//! Who we are and whom we know: the rows, and the rules that hold between them.
//!
//! Nothing here talks to anybody; it decides what is believed.

pub mod contact;
pub mod fellow;
pub mod lookalike;
pub mod own;
pub mod reach;
pub mod safety;
pub mod token;

pub use contact::{Contact, Contacts};
pub use fellow::{Fellow, Fellows};
pub use lookalike::Lookalikes;
pub use own::{Own, OwnError};
pub use reach::{Reach, TokenSource};
pub use safety::safety_number;
pub use token::{TokenPurpose, Tokens};
