//! Why nobody was reached: a short closed list, in words from which a person can tell what to do.
//! What the system or a library said is in the log; here nothing of it is repeated.

/// Why a dial led to no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// There is nothing to dial.
    #[error("no address is known")]
    NoAddress,
    /// The name of the host has no address.
    #[error("its name was not found")]
    NameNotFound,
    /// Somebody else named an address inside a private network.
    #[error("its address is inside a private network, where nothing is dialled that others name")]
    Private,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Nothing came back in time.
    #[error("no answer in time")]
    TimedOut,
    /// No route to the host or its network.
    #[error("the network does not lead there")]
    NoRoute,
    /// The other side hung up before there was a session.
    #[error("it hung up; it may be full, or not let us in")]
    HungUp,
    /// Something else listens there, or another version.
    #[error("what answers there does not speak this protocol")]
    Protocol,
    /// Another key than the expected one.
    #[error("somebody else answers there: its key is another one")]
    WrongIdentity,
    /// The certificate of a rendezvous server.
    #[error("its certificate is {0}")]
    Certificate(CertificateFault),
    /// There is nothing to judge a certificate by: the named file, or the system's roots.
    #[error("the certificate authority to judge it by cannot be read here")]
    NoAuthority,
    /// Whatever else the system says.
    #[error("the connection failed")]
    Failed,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come, or our clock is wrong.
    #[error("not valid yet (or the clock of this machine is wrong)")]
    NotYetValid,
    /// It names somebody else.
    #[error("for another name")]
    OtherName,
    /// Nobody whom we trust has signed it.
    #[error("not signed by an authority that is trusted here; name its own with ca=FILE")]
    UnknownIssuer,
    /// Everything else.
    #[error("not acceptable")]
    Unacceptable,
}
