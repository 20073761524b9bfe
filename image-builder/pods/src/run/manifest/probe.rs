//! Probes and lifecycle hooks.

use std::time::Duration;

use super::fields::{At, Fields, Honoured, Ignored, Refused, Schema};
use crate::run::pod::{Handler, HttpGet, Lifecycle, Probe, Probes};

static PROBE: Schema = Schema {
    name: "Probe",
    keys: &[
        ("exec", Honoured("succeeds if the command exits with 0")),
        ("tcpSocket", Honoured("succeeds if the port accepts a connection")),
        ("httpGet", Honoured("succeeds if the status is 200 to 399")),
        ("grpc", Refused("use exec with a client that is in the image, or tcpSocket")),
        ("initialDelaySeconds", Honoured("0")),
        ("periodSeconds", Honoured("10")),
        ("timeoutSeconds", Honoured("1")),
        ("successThreshold", Honoured("1. Only readiness probes may have another number")),
        ("failureThreshold", Honoured("3")),
        (
            "terminationGracePeriodSeconds",
            Honoured("replaces the pod's grace period when the probe ends the container"),
        ),
    ],
};

static LIFECYCLE: Schema = Schema {
    name: "Lifecycle",
    keys: &[
        ("postStart", Honoured("if it fails, the container is ended")),
        ("preStop", Honoured("runs before the signal. Its time counts towards the grace period")),
        ("stopSignal", Honoured("instead of the image's")),
    ],
};

static HOOK: Schema = Schema {
    name: "LifecycleHandler",
    keys: &[
        ("exec", Honoured("a command in the container")),
        ("httpGet", Honoured("a request to the pod")),
        ("sleep", Honoured("a pause")),
        ("tcpSocket", Refused("Kubernetes does not support it for hooks; use exec, httpGet or sleep")),
    ],
};

static EXEC: Schema = Schema { name: "ExecAction", keys: &[("command", Honoured("without a shell"))] };

static TCP: Schema = Schema {
    name: "TCPSocketAction",
    keys: &[
        ("port", Honoured("a number, or the name of one of the container's ports")),
        ("host", Honoured("the pod")),
    ],
};

static HTTP: Schema = Schema {
    name: "HTTPGetAction",
    keys: &[
        ("port", Honoured("a number, or the name of one of the container's ports")),
        ("host", Honoured("the pod")),
        ("path", Honoured("`/`")),
        ("scheme", Honoured("`HTTP`; `HTTPS` is refused")),
        ("httpHeaders", Honoured("sent with the request")),
    ],
};

static HEADER: Schema =
    Schema { name: "HTTPHeader", keys: &[("name", Honoured("a token")), ("value", Honoured("one line"))] };

static SLEEP: Schema = Schema { name: "SleepAction", keys: &[("seconds", Honoured("0 or more"))] };

static PORT: Schema = Schema {
    name: "ContainerPort",
    keys: &[
        ("name", Honoured("probes and hooks can use it")),
        ("containerPort", Honoured("the number of that name; a port need not be listed to be reached")),
        ("protocol", Honoured("`TCP`, `UDP` or `SCTP`")),
        ("hostPort", Ignored("`run -p` publishes ports")),
        ("hostIP", Ignored("as above")),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] =
    &[&PORT, &PROBE, &LIFECYCLE, &HOOK, &EXEC, &TCP, &HTTP, &HEADER, &SLEEP];

/// Ports that have a name.
pub(super) type Ports = Vec<(String, u16)>;

pub(super) fn ports(container: &Fields<'_>) -> Ports {
    container.each("ports", |at| {
        let fields = at.fields(&PORT)?;
        let number = fields.number("containerPort", 1, u16::MAX);
        if fields.at("containerPort").is_none() {
            fields.wrong("containerPort is missing");
        }
        fields.choice("protocol", &[("TCP", ()), ("UDP", ()), ("SCTP", ())]);
        Some((fields.text("name")?.to_owned(), number?))
    })
}

pub(super) fn probes(container: &Fields<'_>, ports: &Ports) -> Probes {
    let read = |key| container.at(key).and_then(|at| probe(&at, ports, key));
    Probes {
        startup: read("startupProbe"),
        liveness: read("livenessProbe"),
        readiness: read("readinessProbe"),
    }
}

fn probe(at: &At<'_>, ports: &Ports, kind: &str) -> Option<Probe> {
    let fields = at.fields(&PROBE)?;
    let is_readiness = kind == "readinessProbe";
    let seconds = |key, least, default| {
        let count = fields.count(key, least).unwrap_or(default);
        Duration::from_secs(count.into())
    };
    let (delay, period) = (seconds("initialDelaySeconds", 0, 0), seconds("periodSeconds", 1, 10));
    let timeout = seconds("timeoutSeconds", 1, 1);
    let (successes, failures) = (fields.count("successThreshold", 1), fields.count("failureThreshold", 1));
    if successes.is_some_and(|count| count > 1) && !is_readiness {
        fields.wrong("successThreshold other than 1 is for readinessProbe");
    }
    let grace = fields.count("terminationGracePeriodSeconds", 1);
    if grace.is_some() && is_readiness {
        fields.wrong("a readinessProbe ends nothing and has no terminationGracePeriodSeconds");
    }
    let handler = match fields.exactly_one(&["exec", "tcpSocket", "httpGet"])? {
        "exec" => exec(&fields.at("exec")?),
        "tcpSocket" => tcp(&fields.at("tcpSocket")?, ports),
        _ => http(&fields.at("httpGet")?, ports),
    };
    Some(Probe {
        handler: handler?,
        delay,
        period,
        timeout,
        successes: successes.unwrap_or(1),
        failures: failures.unwrap_or(3),
        grace: grace.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

pub(super) fn lifecycle(container: &Fields<'_>, ports: &Ports) -> Lifecycle {
    let Some(fields) = container.fields("lifecycle", &LIFECYCLE) else { return Lifecycle::default() };
    let hook = |key| fields.at(key).and_then(|at| hook(&at, ports));
    Lifecycle {
        post_start: hook("postStart"),
        pre_stop: hook("preStop"),
        stop_signal: fields.text("stopSignal").map(str::to_owned),
    }
}

fn hook(at: &At<'_>, ports: &Ports) -> Option<Handler> {
    let fields = at.fields(&HOOK)?;
    match fields.exactly_one(&["exec", "httpGet", "sleep"])? {
        "exec" => exec(&fields.at("exec")?),
        "httpGet" => http(&fields.at("httpGet")?, ports),
        _ => {
            let fields = fields.fields("sleep", &SLEEP)?;
            if fields.at("seconds").is_none() {
                fields.wrong("seconds is missing");
            }
            fields.count("seconds", 0).map(|seconds| Handler::Sleep(Duration::from_secs(seconds.into())))
        }
    }
}

fn exec(at: &At<'_>) -> Option<Handler> {
    let fields = at.fields(&EXEC)?;
    match fields.texts("command") {
        Some(command) if !command.is_empty() => Some(Handler::Exec(command)),
        _ => {
            fields.wrong("command is missing");
            None
        }
    }
}

fn tcp(at: &At<'_>, ports: &Ports) -> Option<Handler> {
    let fields = at.fields(&TCP)?;
    let host = host(&fields);
    Some(Handler::Tcp { host: host?, port: port(&fields, ports)? })
}

fn http(at: &At<'_>, ports: &Ports) -> Option<Handler> {
    let fields = at.fields(&HTTP)?;
    let host = host(&fields);
    let path = fields.text("path").unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.chars().any(|c| c.is_control() || c == ' ') {
        fields.wrong(format!("path {path:?} has a blank or control character"));
    }
    if let Some(at) = fields.at("scheme")
        && at.text().is_some_and(|scheme| scheme != "HTTP")
    {
        at.wrong("only HTTP is spoken; use exec with a client of the image's, or tcpSocket");
    }
    let headers = fields.each("httpHeaders", |at| {
        let fields = at.fields(&HEADER)?;
        let (name, value) = (fields.needed("name"), fields.needed("value"));
        let (name, value) = (name?.to_owned(), value?.to_owned());
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || value.chars().any(char::is_control) {
            fields.wrong(format!("{name:?} with {value:?} is no header"));
            return None;
        }
        Some((name, value))
    });
    Some(Handler::Http(HttpGet { host: host?, port: port(&fields, ports)?, path, headers }))
}

/// Another host than the pod's own, if one is named.
fn host(fields: &Fields<'_>) -> Option<Option<String>> {
    let Some(at) = fields.at("host") else { return Some(None) };
    let text = at.text()?;
    if text.is_empty() {
        return Some(None);
    }
    let good = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-:_".contains(c));
    if !good {
        at.wrong(format!("{text:?} is neither an address nor a name"));
    }
    good.then(|| Some(text.to_owned()))
}

fn port(fields: &Fields<'_>, ports: &Ports) -> Option<u16> {
    let Some(at) = fields.at("port") else {
        fields.wrong("port is missing");
        return None;
    };
    let word = at.word()?;
    let found = match word.parse::<u16>() {
        Ok(0) => None,
        Ok(number) => Some(number),
        Err(_) => ports.iter().find(|(name, _)| name == word).map(|(_, number)| *number),
    };
    if found.is_none() {
        at.wrong(format!("{word:?} is neither a port nor the name of one of the container's ports"));
    }
    found
}
