//! The agent's log: one JSON object per line, as the shims read it, on the console or on a vsock port.
//!
//! Owns the tracing dispatcher, the thread that writes to the console, and the records that are kept for readers. Promises that logging neither blocks nor
//! panics: records queue up to a bound, beyond it they are dropped and counted, and a console that is gone or
//! stuck costs records, never the agent. Must never do: filter by anything but the level, or log a container's
//! output.
//!
//! ```text
//! tracing event ─┐
//! log record ────┴─> JsonLayer ─┬─ line ──> queue (bounded) ──> thread ──> console
//!                               └─ line ──> backlog (bounded) ──> a task for each reader ──> log port
//! ```
//!
//! With a port (`agent.log_vport`), the console gets only errors and what [`Log::print`] says.
//!
//!
//! An error event with the field `critical = true` becomes a record of level `CRIT`.

mod backlog;
mod console;
mod port;
mod record;
mod timestamp;

use std::io;
use std::num::NonZeroU32;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::console::Queue;
use self::port::Port;
use self::record::Fields;
use crate::config::LogLevel;

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The console could not be kept open, or its thread not be started.
    #[error("start logging to the console")]
    Console(#[source] io::Error),
    /// This process logs already: another agent lives in it, which is fine in tests.
    #[error("set up logging: it is set up already")]
    Taken,
}

/// The running log.
#[derive(Debug)]
pub struct Log {
    queue: Queue,
    port: Option<(NonZeroU32, Arc<Port>)>,
}

impl Log {
    /// Writes a line that is not a record, in its place among them. Unlike `println!` it neither blocks nor panics.
    pub fn print(&self, line: &str) {
        self.queue.send(format!("{line}\n"));
    }

    /// Serves the log on its port, if it has one. Accepts connections when this returns. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the port cannot be listened on; the records are kept all the same.
    pub fn serve(&self) -> io::Result<()> {
        self.port.as_ref().map_or(Ok(()), |(number, port)| port.serve(number.get()))
    }

    /// Waits until those who read the port now have all records logged so far, at most `within`.
    pub async fn delivered(&self, within: Duration) {
        if let Some((_, port)) = &self.port {
            port.delivered(within).await;
        }
    }

    /// Waits until all that was written to the console so far has reached it, at most `within`. Tells whether they have.
    pub fn flush(&self, within: Duration) -> bool {
        self.queue.flush(within)
    }
}

/// Logs everything from `level` up, for the whole process: to standard output, or, where `port` is given, for readers of
/// that vsock port, and only errors to standard output.
///
/// # Errors
/// When the process logs already, has no standard output, or cannot start a thread.
pub fn init(level: LogLevel, port: Option<NonZeroU32>) -> Result<Log, LogError> {
    let queue = Queue::to_stdout().map_err(LogError::Console)?;
    let port = port.map(|number| (number, Arc::new(Port::default())));
    let (console, backlog) = (queue.clone(), port.as_ref().map(|(_, port)| Arc::clone(port.backlog())));
    let layer =
        JsonLayer::new(level == LogLevel::Critical, move |level: Level, line: String| match &backlog {
            None => console.send(line),
            Some(backlog) => {
                if level == Level::ERROR {
                    console.send(line.clone());
                }
                backlog.put(line);
            }
        });
    tracing_subscriber::registry().with(filter(level)).with(layer).try_init().map_err(|_| LogError::Taken)?;
    Ok(Log { queue, port })
}

/// Logs panics as critical records instead of printing them, from now on and for the whole process. The thread or
/// task that panicked ends as ever. For use after [`init()`]: without a log, panics would go unseen.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("(unnamed)");
        tracing::error!(critical = true, subsystem = "panic", location, thread, "panic: {text}");
    }));
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Critical | LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Makes a line of each event and hands it on.
struct JsonLayer<F> {
    critical_only: bool,
    send: F,
}

impl<F: Fn(Level, String)> JsonLayer<F> {
    fn new(critical_only: bool, send: F) -> Self {
        JsonLayer { critical_only, send }
    }
}

impl<S, F> Layer<S> for JsonLayer<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn(Level, String) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        // Outermost first: what is nearer to the event replaces what is farther.
        for span in context.event_scope(event).into_iter().flatten().collect::<Vec<_>>().into_iter().rev() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.extend(outer);
            }
        }
        event.record(&mut fields);
        if self.critical_only && !fields.is_critical() {
            return;
        }
        (self.send)(*event.metadata().level(), record::line(event.metadata(), fields, SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What `work` logs at `level`, parsed.
    fn logged(level: LogLevel, work: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let layer =
            JsonLayer::new(level == LogLevel::Critical, move |_, line| sink.lock().unwrap().push(line));
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(filter(level)).with(layer),
            work,
        );
        let lines = lines.lock().unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }

    #[test]
    fn a_record_has_the_shape_that_shims_read() {
        let records = logged(LogLevel::Info, || {
            tracing::info!(target: "agent::network::links", count = 2, name = "eth0", "link up");
        });
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!(record["msg"], "link up");
        assert_eq!(record["level"], "INFO");
        assert_eq!(record["subsystem"], "network");
        assert_eq!(record["source"], "agent");
        assert_eq!(record["name"], "kata-agent");
        assert_eq!(record["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(record["pid"], std::process::id().to_string());
        assert_eq!(record["count"], 2);
        assert_eq!(record["name_"], "eth0", "a field never replaces what every record has");
        let ts = record["ts"].as_str().unwrap();
        assert!(ts.len() == 30 && ts.ends_with('Z'), "{ts}");
    }

    #[test]
    fn fields_of_spans_are_inherited_and_the_nearest_wins() {
        let records = logged(LogLevel::Info, || {
            let outer =
                tracing::info_span!("container", container_id = "c1", exec_id = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("exec_id", "e1");
            let _inner = tracing::info_span!("step", step = 1).entered();
            tracing::info!(step = 2, "one");
            tracing::info!("two");
        });
        assert_eq!(records[0]["container_id"], "c1");
        assert_eq!(records[0]["exec_id"], "e1");
        assert_eq!(records[0]["step"], 2);
        assert_eq!(records[1]["step"], 1);
    }

    #[test]
    fn the_level_decides_what_is_logged() {
        let work = || {
            tracing::trace!("t");
            tracing::debug!("d");
            tracing::info!("i");
            tracing::warn!("w");
            tracing::error!("e");
            tracing::error!(critical = true, "c");
        };
        let levels = |level| -> Vec<String> {
            logged(level, work).iter().map(|r| r["level"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(levels(LogLevel::Trace), ["TRCE", "DEBG", "INFO", "WARN", "ERRO", "CRIT"]);
        assert_eq!(levels(LogLevel::Info), ["INFO", "WARN", "ERRO", "CRIT"]);
        assert_eq!(levels(LogLevel::Error), ["ERRO", "CRIT"]);
        assert_eq!(levels(LogLevel::Critical), ["CRIT"]);
    }

    #[test]
    fn a_second_agent_in_the_process_is_told_and_nothing_panics() {
        let first = init(LogLevel::Info, None).unwrap();
        assert!(matches!(init(LogLevel::Debug, None), Err(LogError::Taken)));
        tracing::warn!("written to the console of the test");
        first.print("so is this");
        assert!(first.flush(Duration::from_secs(10)));
    }
}
