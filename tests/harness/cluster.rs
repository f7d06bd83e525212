//! The cluster of `KUBECONFIG`, and namespaces of the tests' own in it.

use super::http::{Answer, Connection, read_chunk};
use super::unique;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub const COMPONENT: &str = "work";
const ENVIRONMENT: &str = "dev";
/// An account that may do everything in its namespace.
const ADMIN: &str = "admin";

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The address of the API server, and how to be sure that it is the one.
#[derive(Clone)]
pub struct ApiServer {
    /// `host:port`.
    address: String,
    ca: Vec<u8>,
    tls: Arc<ClientConfig>,
}

impl ApiServer {
    /// As `kubectl` knows it.
    pub fn of_kubeconfig() -> ApiServer {
        let config = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "");
        let config: Value = serde_json::from_str(&config).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        let text = |name: &str| cluster[name].as_str().unwrap().to_string();
        let address = text("server").trim_start_matches("https://").to_string();
        let ca = decode_base64(&text("certificate-authority-data"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        ApiServer {
            address,
            ca,
            tls: Arc::new(tls),
        }
    }

    /// Its certificate authority, PEM.
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn connect(&self) -> io::Result<TlsStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let host = self.address.split(':').next().unwrap_or_default();
        let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(self.tls.clone(), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }
}

/// A namespace with the accounts that a scheduler and its tests need; deleted when dropped.
pub struct Namespace {
    /// The application's name, too.
    app: String,
    pub name: String,
    pub api: Arc<Api>,
    /// Of the account that the project's manifests make for the scheduler.
    pub scheduler_token: String,
    /// The radixconfig.yaml of its one job component.
    pub config: String,
}

impl Namespace {
    /// `component` is more of the job component, lines of YAML without indentation.
    pub fn new(purpose: &str, component: &str) -> Namespace {
        let app = format!("f-{purpose}-{}", unique());
        let mut config = format!(
            "metadata:\n  name: {app}\nspec:\n  environments:\n    - name: {ENVIRONMENT}\n  jobs:\n    - name: {COMPONENT}\n"
        );
        let busybox = std::env::var("JOB_IMAGE");
        let busybox = busybox.unwrap_or_else(|_| "localhost:5000/busybox:1".to_string());
        let image = match component.contains("image:") {
            true => String::new(),
            false => format!("image: {busybox}\n"),
        };
        let common = format!("{image}schedulerPort: 8000\npayload:\n  path: /args\n");
        for line in common.lines().chain(component.lines()) {
            config.push_str(&format!("      {line}\n"));
        }
        let name = format!("{app}-{ENVIRONMENT}");
        apply(&rights(&config, &app));
        let admin = json!({"kind": "List", "apiVersion": "v1", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ADMIN, "namespace": name}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
             "metadata": {"name": ADMIN, "namespace": name},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
             "subjects": [{"kind": "ServiceAccount", "name": ADMIN, "namespace": name}]},
        ]});
        apply(&admin);
        let api = Arc::new(Api {
            server: ApiServer::of_kubeconfig(),
            token: token(&name, ADMIN),
            kept: Mutex::default(),
        });
        Namespace {
            app,
            scheduler_token: token(&name, &format!("{COMPONENT}-scheduler")),
            api,
            name,
            config,
        }
    }

    /// Another token for the scheduler.
    pub fn new_scheduler_token(&self) -> String {
        token(&self.name, &format!("{COMPONENT}-scheduler"))
    }

    pub fn flags(&self) -> [String; 4] {
        [
            "--environment".to_string(),
            ENVIRONMENT.to_string(),
            "--component".to_string(),
            COMPONENT.to_string(),
        ]
    }

    /// Bounds what there may be in the namespace: `{"pods": "0"}`.
    pub fn quota(&self, hard: Value) {
        let quota = json!({"metadata": {"name": "bound"}, "spec": {"hard": hard}});
        let path = format!("/api/v1/namespaces/{}/resourcequotas", self.name);
        let made = self.api.call("POST", &path, Some(&quota));
        assert_eq!(made.code, 201, "{made}");
        // A quota holds once its controller has counted what there is.
        super::within(Duration::from_secs(20), || {
            let quota = self.api.get(&format!("{path}/bound"));
            super::holds(quota["status"]["hard"].is_object(), || quota.to_string())
        });
    }

    pub fn jobs_path(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.name)
    }

    pub fn core_path(&self, kind: &str) -> String {
        format!("/api/v1/namespaces/{}/{kind}", self.name)
    }

    /// All jobs that Kubernetes has.
    pub fn jobs(&self) -> Vec<Value> {
        self.api.list(&self.jobs_path())
    }

    /// The Secrets of jobs: name and payload.
    pub fn payloads(&self) -> Vec<(String, Vec<u8>)> {
        let secrets = self.api.list(&format!(
            "{}?labelSelector=radix-app%3D{}",
            self.core_path("secrets"),
            self.app
        ));
        let payload =
            |secret: &Value| decode_base64(secret["data"]["payload"].as_str().unwrap_or_default());
        secrets
            .iter()
            .map(|secret| (name_of(secret), payload(secret)))
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_none() {
            kubectl(
                &[
                    "delete",
                    "namespace",
                    &self.name,
                    "--wait=false",
                    "--ignore-not-found",
                ],
                "",
            );
        }
    }
}

pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_string()
}

/// The manifests of the project, but for what runs in the cluster: the scheduler's account and its rights.
fn rights(config: &str, app: &str) -> Value {
    let file = std::env::temp_dir().join(format!("{app}.yaml"));
    std::fs::write(&file, config).unwrap();
    let printed = Command::new(super::scheduler::binary())
        .arg("manifests")
        .arg(&file)
        .args(["--environment", ENVIRONMENT, "--scheduler-image", "unused"])
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let mut list: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let kinds = ["Namespace", "ServiceAccount", "Role", "RoleBinding"];
    list["items"]
        .as_array_mut()
        .unwrap()
        .retain(|object| kinds.iter().any(|kind| object["kind"] == *kind));
    list
}

fn apply(objects: &Value) {
    kubectl(&["apply", "-f", "-"], &objects.to_string());
}

fn token(namespace: &str, account: &str) -> String {
    let token = kubectl(
        &[
            "create",
            "token",
            account,
            "-n",
            namespace,
            "--duration",
            "3h",
        ],
        "",
    );
    token.trim().to_string()
}

/// Runs kubectl and returns what it printed; fails with what it complained of.
#[track_caller]
pub fn kubectl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("kubectl: {e}: run scripts/with-cluster"));
    // A child that ends before it has read it all says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The API server, asked directly and as one who may do everything.
pub struct Api {
    server: ApiServer,
    token: String,
    kept: Mutex<Vec<Connection<TlsStream>>>,
}

impl Api {
    fn connection(&self) -> Connection<TlsStream> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        kept.unwrap_or_else(|| {
            Connection::new(self.server.connect().unwrap(), self.server.address())
        })
    }

    fn headers(&self, method: &str) -> [String; 2] {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        [
            format!("Authorization: Bearer {}", self.token),
            format!("Content-Type: {kind}"),
        ]
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers = self.headers(method);
        let headers = headers.each_ref().map(String::as_str);
        for _ in 0..20 {
            let mut connection = self.connection();
            if let Ok(answer) = connection.ask(method, path, &headers, body.as_bytes()) {
                self.kept
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
                return answer;
            }
            // A kept connection may have been closed.
        }
        panic!("{method} {path}: no answer from the API server");
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None);
        assert_eq!(answer.code, 200, "GET {path}: {answer}");
        answer.json()
    }

    /// All pages.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let (mut items, mut token) = (Vec::new(), String::new());
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{separator}limit=500&continue={token}"));
            items.append(page["items"].as_array_mut().unwrap());
            match page["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() => token = next.to_string(),
                _ => return items,
            }
        }
    }

    /// Watches what is below `path`, with all there is at first, and hands over each frame until `take` says to end.
    pub fn watch(&self, path: &str, mut take: impl FnMut(&Value) -> bool) {
        let mut connection = Connection::new(self.server.connect().unwrap(), self.server.address());
        let headers = self.headers("GET");
        let headers = headers.each_ref().map(String::as_str);
        connection
            .send("GET", &format!("{path}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"), &headers, b"")
            .unwrap();
        let head = super::http::Head::read(&mut connection.stream)
            .unwrap()
            .unwrap();
        assert_eq!(head.code(), 200, "{head:?}");
        let mut rest = Vec::new();
        loop {
            match read_chunk(&mut connection.stream) {
                Ok(chunk) if !chunk.is_empty() => rest.extend(chunk),
                _ => return,
            }
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(&serde_json::from_slice(&line).unwrap()) {
                    return;
                }
            }
        }
    }
}

/// Standard base64 with padding.
pub fn decode_base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no base64: {c}"),
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let number = group
            .iter()
            .chain([&0; 4])
            .take(4)
            .fold(0u32, |number, digit| number << 6 | u32::from(*digit));
        bytes.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
    }
    bytes
}
