//! The yardstick of submits: the scheduler's own writes, sent straight at the API server with the same HTTP client.

use crate::harness::cluster::{ApiServer, Namespace};
use crate::harness::unique;
use crate::proxy::Asked;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::request::Builder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The two objects of a job, to be sent again under other names.
#[derive(Clone)]
pub struct Writes {
    name: String,
    uid: String,
    /// With `name` and `uid` as the scheduler sent them.
    job: String,
    secret: String,
    jobs_path: String,
    secrets_path: String,
    job_accept: String,
    secret_accept: String,
}

impl Writes {
    pub fn new(namespace: &Namespace, job: &Asked, secret: &Asked) -> Writes {
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let parsed = read(&secret.body);
        Writes {
            name: text(&parsed["metadata"]["name"]),
            uid: text(&parsed["metadata"]["ownerReferences"][0]["uid"]),
            job: String::from_utf8(job.body.clone()).unwrap(),
            secret: String::from_utf8(secret.body.clone()).unwrap(),
            jobs_path: namespace.jobs_path(),
            secrets_path: namespace.core_path("secrets"),
            job_accept: job.accept.clone(),
            secret_accept: secret.accept.clone(),
        }
    }

    pub fn with_payload(&self, payload: &str) -> Writes {
        let mut secret: Value = serde_json::from_str(&self.secret).unwrap();
        secret["stringData"]["payload"] = payload.into();
        Writes {
            secret: secret.to_string(),
            ..self.clone()
        }
    }
}

/// What is read of a Job that was made.
#[derive(Deserialize)]
struct Made {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

pub struct Raw {
    agent: Agent,
    url: String,
    authorization: String,
}

impl Raw {
    pub fn new(namespace: &Namespace, connections: usize) -> Raw {
        let api = ApiServer::of_kubeconfig();
        let ca = Certificate::from_pem(api.ca()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .build()
            .new_agent();
        Raw {
            agent,
            url: format!("https://{}", api.address()),
            authorization: format!("Bearer {}", namespace.scheduler_token),
        }
    }

    /// `accept` is the scheduler's own, so that the answers are as large, too.
    pub fn post(&self, path: &str, body: &str, accept: &str) -> Vec<u8> {
        let request = ureq::http::Request::post(format!("{}{path}", self.url));
        let request = request.header("Content-Type", "application/json");
        self.send(request.header("Accept", accept), body, 201)
    }

    /// Makes an object, and returns its uid.
    pub fn make(&self, path: &str, body: &str, accept: &str) -> String {
        let made: Made = serde_json::from_slice(&self.post(path, body, accept)).unwrap();
        made.metadata.uid
    }

    pub fn patch(&self, path: &str, body: &str, accept: &str) {
        let request = ureq::http::Request::patch(format!("{}{path}", self.url));
        let request = request.header("Content-Type", "application/merge-patch+json");
        self.send(request.header("Accept", accept), body, 200);
    }

    fn send(&self, request: Builder, body: &str, code: u16) -> Vec<u8> {
        let request = request.header("Authorization", &self.authorization);
        let mut answer = self.agent.run(request.body(body).unwrap()).unwrap();
        let bytes = answer.body_mut().read_to_vec().unwrap();
        assert_eq!(answer.status(), code, "{}", String::from_utf8_lossy(&bytes));
        bytes
    }

    /// Ends like the scheduler's, in 8 characters that no other has.
    fn new_name(&self, writes: &Writes) -> String {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id() as usize * 7 % 1000;
        format!(
            "{}{process:03}{number:05}",
            &writes.name[..writes.name.len() - 8]
        )
    }

    fn pair(&self, writes: &Writes) {
        let name = self.new_name(writes);
        let job = writes.job.replace(&writes.name, &name);
        let uid = self.make(&writes.jobs_path, &job, &writes.job_accept);
        let secret = writes.secret.replace(&writes.name, &name);
        let secret = secret.replace(&writes.uid, &uid);
        self.post(&writes.secrets_path, &secret, &writes.secret_accept);
    }

    /// How long `count` Jobs with their Secrets take.
    pub fn time_pairs(&self, writes: &Writes, clients: usize, count: usize) -> Duration {
        in_parallel(clients, count, || self.pair(writes))
    }

    /// How long `count` Secrets take, one after the other.
    pub fn time_secrets(&self, writes: &Writes, count: usize) -> Duration {
        in_parallel(1, count, || {
            let mut secret: Value = serde_json::from_str(&writes.secret).unwrap();
            secret["metadata"]["name"] = format!("raw-{}", unique()).into();
            secret["metadata"]["ownerReferences"] = Value::Null;
            self.post(
                &writes.secrets_path,
                &secret.to_string(),
                &writes.secret_accept,
            );
        })
    }

    /// Makes Jobs as if the scheduler had, without payloads.
    pub fn jobs(&self, writes: &Writes, count: usize) {
        self.make_jobs(writes, count, &[]);
    }

    /// The same as if somebody held them back, so that the scheduler lets none of them run.
    pub fn held_jobs(&self, writes: &Writes, count: usize) {
        self.make_jobs(writes, count, &["job-scheduler/queued"]);
    }

    fn make_jobs(&self, writes: &Writes, count: usize, without: &[&str]) {
        let mut job: Value = serde_json::from_str(&writes.job).unwrap();
        let annotations = job["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("job-scheduler/payload");
        for name in without {
            annotations.remove(*name);
        }
        for part in ["volumes", "containers/0/volumeMounts"] {
            let (parent, key) = part.rsplit_once('/').unwrap_or(("", part));
            let path = format!("/spec/template/spec/{parent}");
            let object = job.pointer_mut(path.trim_end_matches('/')).unwrap();
            object.as_object_mut().unwrap().remove(key);
        }
        let job = job.to_string();
        in_parallel(8, count, || {
            let job = job.replace(&writes.name, &self.new_name(writes));
            self.post(&writes.jobs_path, &job, &writes.job_accept);
        });
    }
}

/// Does something `count` times; returns how long that took.
pub fn in_parallel(clients: usize, count: usize, work: impl Fn() + Sync) -> Duration {
    let began = Instant::now();
    scope(|scope| {
        for number in 0..clients {
            let share = count / clients + usize::from(number < count % clients);
            let work = &work;
            scope.spawn(move || (0..share).for_each(|_| work()));
        }
    });
    began.elapsed()
}
