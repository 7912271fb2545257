//! Every blob arrives: what waits for whom, over which path, and what became of what came in.
//!
//! * [`outbox`]: durable rows: one for each blob and recipient, until a mailbox of the recipient
//!   has it durably.
//! * [`lane`]: in memory: one for each recipient with rows; decides what is tried next, and when.
//! * [`shipment`]: what lanes let go in one turn, put together: one store for each relay and blob.
//! * [`inbox`]: durable verdicts: every blob that came in has exactly one, or waits for one.
//! * [`backoff`]: when to try again.
//! * [`trouble`]: why something has not arrived yet.

pub mod backoff;
pub mod inbox;
pub mod lane;
pub mod outbox;
pub mod shipment;
pub mod trouble;

pub use backoff::Backoff;
pub use inbox::{Inbox, Verdict};
pub use lane::{Lane, Means, Path, Pauses, Step, Way};
pub use outbox::{Outbox, Parcel, Purpose};
pub use shipment::{Company, Shipment, Shipments};
pub use trouble::Trouble;
