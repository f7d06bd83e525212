//! The configuration as its users see it: files in, job components, errors and warnings out.

use super::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

fn full() -> RadixConfig {
    parse(
        "full",
        &fs::read(testdata("radixconfig-full.yaml")).unwrap(),
    )
    .unwrap()
}

/// A file with one job component, of which the text is the rest.
fn with_job(rest: &str) -> String {
    format!(
        "metadata: {{name: app}}\nspec:\n  environments: [{{name: dev}}, {{name: prod}}]\n  \
         jobs:\n  - name: compute\n    schedulerPort: 8000\n{rest}"
    )
}

fn parsed(yaml: &str) -> RadixConfig {
    parse("f", yaml.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn milli(quantity: Option<&Quantity>) -> Option<i128> {
    quantity.map(|quantity| quantity.milli)
}

/// Each file has its messages beside it. A new one's are written down by hand, or copied from the failure and read.
#[test]
fn errors_name_the_line_the_field_and_the_fix() {
    let mut files: Vec<PathBuf> = fs::read_dir(testdata("config-errors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy();
        let error = parse(&name, &fs::read(&path).unwrap()).expect_err(&name);
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        assert_eq!(format!("{error}\n"), expected, "{name} gives:\n{error}\n");
    }
}

#[test]
fn the_example_has_two_job_components() {
    let config = load(&testdata("radixconfig.yaml")).unwrap();
    assert_eq!(config.app, "demo");
    assert_eq!(config.environments, ["dev", "prod"]);
    assert_eq!(config.job_names().collect::<Vec<_>>(), ["compute", "etl"]);
    assert_eq!(config.warnings, []);
    let compute = config.job_component("prod", "compute").unwrap();
    assert_eq!(compute.namespace(), "demo-prod");
    assert_eq!(compute.scheduler_port, 8000);
    assert_eq!(compute.payload_path.as_deref(), Some("/compute/args"));
    assert_eq!(
        compute
            .ports
            .iter()
            .map(|p| (p.name.as_str(), p.port))
            .collect::<Vec<_>>(),
        [("http", 3000)]
    );
    assert_eq!(
        compute.settings.variables["GREETING"],
        "computing in production"
    );
    assert_eq!(compute.settings.backoff_limit, Some(1));
    let dev = config.job_component("dev", "compute").unwrap();
    assert_eq!(dev.settings.backoff_limit, None);
    assert_eq!(config.job_components("dev").unwrap().len(), 2);
}

#[test]
fn every_served_field_is_read() {
    let train = full().job_component("dev", "train").unwrap();
    assert_eq!(train.app, "full");
    assert_eq!(train.environment, "dev");
    assert_eq!(train.name, "train");
    assert_eq!(train.secrets, ["DB_PASSWORD", "API_KEY"]);
    assert!(train.read_only_file_system);
    let mounts = train.volume_mounts.iter();
    let mounts: Vec<_> = mounts
        .map(|m| {
            (
                m.name.as_str(),
                m.path.as_str(),
                milli(m.size_limit.as_ref()),
            )
        })
        .collect();
    assert_eq!(
        mounts,
        [
            ("scratch", "/scratch", Some(1_073_741_824_000)),
            ("tmp", "/tmp", None)
        ]
    );

    let settings = &train.settings;
    assert_eq!(
        settings.image_reference().as_deref(),
        Ok("registry.example.com/train:1.10")
    );
    assert_eq!(settings.variables["RATIO"], "1.10");
    assert_eq!(settings.variables["VERBOSE"], "true");
    assert_eq!(settings.time_limit_seconds, Some(3600));
    assert_eq!(settings.backoff_limit, Some(2));
    let rules = &settings.failure_policy.as_ref().unwrap().rules;
    let codes: Vec<_> = rules.iter().map(|rule| &rule.on_exit_codes).collect();
    assert_eq!(
        codes,
        [&ExitCodes::In(vec![1, 42]), &ExitCodes::NotIn(vec![0, 2])]
    );
    assert_eq!(settings.safe_to_restart, Some(true));
    assert_eq!(settings.command.as_deref().unwrap(), ["python", "train.py"]);
    assert_eq!(settings.args.as_deref().unwrap(), ["--epochs", "10"]);
    assert_eq!(settings.run_as_user, Some(1000));
    let resources = settings.resources.as_ref().unwrap();
    assert_eq!(milli(resources.requests.get("cpu")), Some(500));
    assert_eq!(milli(resources.requests.get("nvidia.com/gpu")), Some(1000));
    let node = settings.node.as_ref().unwrap();
    assert_eq!(node.gpu.as_deref(), Some("nvidia-v100,-nvidia-k80"));
    assert_eq!(node.gpu_count, Some(2));
    assert_eq!(
        settings.runtime,
        Some(Runtime::Architecture(Architecture::Amd64))
    );
}

#[test]
fn an_environment_overrides_every_field() {
    let train = full().job_component("prod", "train").unwrap();
    assert_eq!(train.scheduler_port, 8080);
    assert_eq!(train.payload_path.as_deref(), Some("/prod/args"));
    assert_eq!(train.ports.len(), 1);
    assert_eq!(train.secrets, ["API_KEY"]);
    assert!(!train.read_only_file_system);
    let mounts = train.volume_mounts.iter();
    let mounts: Vec<_> = mounts
        .map(|m| (m.name.as_str(), milli(m.size_limit.as_ref())))
        .collect();
    assert_eq!(
        mounts,
        [
            ("scratch", Some(107_374_182_400_000)),
            ("tmp", None),
            ("cache", None)
        ]
    );

    let settings = &train.settings;
    assert_eq!(
        settings.image_reference().as_deref(),
        Ok("registry.example.com/train-prod:2.0")
    );
    let variables: Vec<_> = settings
        .variables
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        variables,
        [
            "LOG_LEVEL=warn",
            "RATIO=1.10",
            "REGION=north",
            "RETRIES=3",
            "VERBOSE=true"
        ]
    );
    assert_eq!(settings.command.as_deref(), Some([].as_slice()));
    assert_eq!(settings.failure_policy.as_ref().unwrap().rules, []);
    let resources = settings.resources.as_ref().unwrap();
    assert_eq!(resources.requests.keys().collect::<Vec<_>>(), ["memory"]);
    assert_eq!(resources.requests, resources.limits);
    assert_eq!(settings.node.as_ref().unwrap().gpu_count, None);
    assert_eq!(
        settings.runtime,
        Some(Runtime::NodeType("gpu-a100".to_owned()))
    );
}

#[test]
fn a_disabled_job_component_is_left_out() {
    let config = full();
    assert_eq!(config.job_components("qa").unwrap(), []);
    assert_eq!(
        config.job_component("qa", "train").unwrap_err().to_string(),
        "full: spec.jobs[train].enabled: the job component is not enabled in `qa`: set `enabled: true` there to run it"
    );
    let config = parsed(&with_job(
        "    enabled: false\n    environmentConfig: [{environment: prod, enabled: true}]",
    ));
    assert_eq!(config.job_components("dev").unwrap().len(), 0);
    assert_eq!(config.job_components("prod").unwrap().len(), 1);
}

#[test]
fn names_that_are_not_there_are_told_with_those_that_are() {
    let config = parsed(&with_job(""));
    let error = |environment, name| {
        config
            .job_component(environment, name)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("test", "compute"),
        "f: spec.environments: there is no environment `test`: give one of dev, prod"
    );
    assert_eq!(
        config.job_components("test").unwrap_err().to_string(),
        error("test", "compute")
    );
    assert_eq!(
        error("dev", "computer"),
        "f: spec.jobs: there is no job component `computer`: did you mean `compute`?"
    );
    assert_eq!(
        error("dev", "etl"),
        "f: spec.jobs: there is no job component `etl`: give one of compute"
    );
    let config = parsed("metadata: {name: app}\nspec: {environments: [{name: dev}]}");
    assert_eq!(config.job_components("dev").unwrap(), []);
    assert_eq!(
        config.job_component("dev", "x").unwrap_err().to_string(),
        "f: spec.jobs: there is no job component `x`: the file has none"
    );
}

#[test]
fn what_has_no_effect_is_told_by_name() {
    #[track_caller]
    fn check(rest: &str, expected: &[&str]) {
        let config = parsed(&with_job(rest));
        let warnings: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(warnings, expected);
    }
    check("", &[]);
    check(
        "    notifications: {webhook: http://x}\n    environmentConfig:\n    - environment: dev\n      monitoring: true\n",
        &[
            "f:7: spec.jobs[compute].notifications: has no effect: this scheduler does not serve it",
            "f:10: spec.jobs[compute].environmentConfig[dev].monitoring: has no effect: this scheduler does not serve it",
        ],
    );
    check(
        "    volumeMounts:\n    - name: a\n      path: /a\n      blobFuse2: {container: c}\n",
        &[
            "f:10: spec.jobs[compute].volumeMounts[0].blobFuse2: has no effect: of volumes, only those with emptyDir are served",
        ],
    );
    check(
        "    image: a:{imageTagName}\n    environmentConfig: [{environment: dev, imageTagName: 1}]\n",
        &[
            "f:5: spec.jobs[compute]: imageTagName is not set, and the image has `{imageTagName}`: each request must give one",
        ],
    );
}

#[test]
fn sections_that_are_not_about_jobs_are_left_alone() {
    let yaml = "apiVersion: radix.equinor.com/v1\nkind: RadixApplication\n\
                metadata: {name: app, labels: {a: b}}\n\
                spec:\n  environments: [{name: dev, build: {from: main}}]\n  \
                components: [{name: backend, publicPort: http, anything: [1]}]\n  \
                build: {secrets: [A]}\n  dnsAlias: []\n  privateImageHubs: {}\n";
    assert_eq!(parsed(yaml).warnings, []);
}

#[test]
fn yaml_anchors_serve_job_components_alike() {
    let config = parsed(&with_job(
        "    environmentConfig:\n    - &dev\n      environment: dev\n      variables: {A: 1}\n      \
         timeLimitSeconds: 60\n    - <<: *dev\n      environment: prod\n",
    ));
    let settings = config.job_component("prod", "compute").unwrap().settings;
    assert_eq!(settings.time_limit_seconds, Some(60));
    assert_eq!(settings.variables["A"], "1");
}

#[test]
fn an_endless_file_is_read_no_further_than_the_limit() {
    let endless = Path::new("/dev/zero");
    if endless.exists() {
        let error = load(endless).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let path = std::env::temp_dir().join(format!("job-scheduler-{}.yaml", std::process::id()));
    let file = File::create(&path).unwrap();
    file.set_len(100 << 20).unwrap();
    let outcome = load(&path);
    fs::remove_file(&path).unwrap();
    assert!(matches!(outcome, Err(ConfigError::TooLarge { .. })));
    let most = vec![b'#'; MAX_FILE_BYTES];
    assert!(matches!(parse("f", &most), Err(ConfigError::Syntax { .. })));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("no/such.yaml")).unwrap_err().to_string();
    assert!(
        error.starts_with("no/such.yaml: cannot be read: No such file"),
        "{error}"
    );
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_a_configuration() {
    let bytes = fs::read(testdata("radixconfig-full.yaml")).unwrap();
    for length in 0..bytes.len() {
        if let Err(error) = parse("f", &bytes[..length]) {
            assert!(!error.to_string().is_empty(), "cut at {length}");
        }
    }
}

#[test]
fn many_mistakes_are_told_in_part() {
    let many: String = (0..5_000).map(|n| format!("    k{n}: 1\n")).collect();
    let error = parse("f", with_job(&many).as_bytes()).unwrap_err();
    assert!(
        matches!(error, ConfigError::Fields { errors, .. } if (1..=50).contains(&errors.len()))
    );
}
