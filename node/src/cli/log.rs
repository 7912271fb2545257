//! What the daemon writes to standard error, as configured.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// A way to change what is logged while the node runs.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<LevelFilter, Registry>);

impl LogFilter {
    /// Logs at this level from now on.
    pub fn set(&self, level: LogLevel) {
        // Fails only when there is no log any more.
        let _ = self.0.reload(filter_of(level));
    }
}

/// Starts the log of this process. A second call changes nothing.
pub(super) fn start(config: LogConfig) -> LogFilter {
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    let registry = tracing_subscriber::registry().with(filter);
    // Whoever closes the terminal closes standard error, too: a line that cannot be written must not
    // be complained about there, which would end the thread that wrote it.
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_ansi(false).log_internal_errors(false);
    // An error only says that there is a log already.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    LogFilter(handle)
}

const fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
