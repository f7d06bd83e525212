//! What is posted is what the job reads.

use crate::api::name;
use crate::cluster::Cluster;
use serde_json::json;

const MEBIBYTE: usize = 1 << 20;

pub fn payload_arrives_byte_for_byte(cluster: &Cluster) -> Vec<String> {
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let base64: String = (0..MEBIBYTE)
        .map(|i| char::from(BASE64[(i * 7 + i / 61) % 64]))
        .collect();
    let payloads = [
        ("text", "  hello,\tworld \r\n\n ".to_string()),
        ("JSON", r#"{"x": 10, "y": "\"\\\u0000"}"#.to_string()),
        ("empty", String::new()),
        (
            "every control character",
            (0..=0x1f)
                .map(char::from)
                .chain(['\x7f', '\u{80}', '\u{9f}'])
                .collect(),
        ),
        (
            "multi-byte UTF-8",
            "\u{feff}æøå €漢字 𝄞 👩\u{200d}👧 \u{2028}\u{fffd}\u{10ffff}".to_string(),
        ),
        ("1 MiB of base64", base64),
        ("1 MiB of two-byte UTF-8", "é".repeat(MEBIBYTE / 2)),
        // Six times as long in JSON.
        ("1 MiB of control characters", "\u{1}".repeat(MEBIBYTE)),
    ];
    let mut compute = cluster.scheduler("dev", "compute");
    let started = payloads.map(|(what, payload)| {
        let job = compute.start(json!({"payload": payload}));
        (what, payload, name(&job))
    });
    let mut proved = Vec::new();
    for (what, payload, job) in started {
        compute.wait_until_started(&job);
        // The job serves the folder of its payload by HTTP.
        let response = crate::cluster::within(crate::api::SOON, || {
            let response = compute.backend.get(&job, 3000, "/payload");
            response.ok_or(format!("http://{job}:3000 does not answer"))
        });
        assert_eq!(response.code, 200, "{what}: {response}");
        let (got, sent) = (&response.body, payload.as_bytes());
        let differs = got.iter().zip(sent).position(|(got, sent)| got != sent);
        let lengths = format!("{what}: {} bytes arrived of {}", got.len(), sent.len());
        assert!(got == sent, "{lengths}, and differ at {differs:?}");
        assert_eq!(compute.delete(&job).code, 200);
        proved.push(lengths);
    }
    proved
}
