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

/// The volume mounts, each on one line.
fn mounts(component: &JobComponent) -> Vec<String> {
    let source = |source: &VolumeSource| match source {
        VolumeSource::EmptyDir { size_limit } => {
            let limit = size_limit.as_ref().map_or("-", |limit| limit.text.as_str());
            format!("emptyDir {limit}")
        }
        VolumeSource::PersistentVolumeClaim {
            claim_name,
            read_only,
        } => format!("persistentVolumeClaim {claim_name} {read_only:?}"),
        VolumeSource::ConfigMap { name } => format!("configMap {name}"),
    };
    let mounts = component.volume_mounts.iter();
    mounts
        .map(|mount| format!("{} {} {}", mount.name, mount.path, source(&mount.source)))
        .collect()
}

/// Each file has its messages beside it. A new one's are written down by hand, or copied from the
/// failure and read.
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

fn rule(rule: &StatusRule) -> String {
    let (condition, operator) = (rule.condition.as_str(), rule.operator.as_str());
    let (jobs, batch) = (&rule.job_statuses, rule.batch_status);
    format!("{condition} {operator} {jobs:?} {batch}")
}

#[test]
fn every_served_field_is_read() {
    let train = full().job_component("dev", "train").unwrap();
    assert_eq!(train.app, "full");
    assert_eq!(train.environment, "dev");
    assert_eq!(train.name, "train");
    assert_eq!(train.secrets, ["DB_PASSWORD", "API_KEY"]);
    assert!(train.read_only_file_system);
    assert_eq!(
        mounts(&train),
        [
            "scratch /scratch emptyDir 1Gi",
            "tmp /tmp emptyDir -",
            "models /models persistentVolumeClaim models Some(true)",
            "settings /etc/train configMap train-settings",
        ]
    );
    let identity = train.identity.unwrap();
    assert_eq!(
        identity.azure_client_id,
        "01234567-89ab-cdef-0123-456789abcdef"
    );
    let monitoring = train.monitoring.unwrap();
    assert_eq!(
        (monitoring.port, monitoring.path.as_str()),
        (3001, "/prometheus")
    );

    let rules: Vec<String> = train.batch_status_rules.iter().map(rule).collect();
    assert_eq!(
        rules,
        [
            "Any In [Failed, Stopped] Failed",
            "All NotIn [Waiting, Active, Running] Succeeded"
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
    assert_eq!(
        mounts(&train),
        [
            "scratch /scratch emptyDir 100Gi",
            "tmp /tmp emptyDir -",
            "models /prod/models persistentVolumeClaim models-prod Some(true)",
            "settings /etc/train configMap train-settings",
            "cache /cache emptyDir -",
        ]
    );
    let identity = train.identity.unwrap();
    assert_eq!(
        identity.azure_client_id,
        "fedcba98-7654-3210-fedc-ba9876543210"
    );
    assert_eq!(train.monitoring, None);
    assert_eq!(train.batch_status_rules, []);

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
    let node = settings.node.as_ref().unwrap();
    assert_eq!(node.gpu.as_deref(), Some("nvidia-a100"));
    assert_eq!(node.gpu_count, Some(2));
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
        "    network: {}\n    environmentConfig:\n    - environment: dev\n      cron: {}\n",
        &[
            "f:7: spec.jobs[compute].network: has no effect: this scheduler does not serve it",
            "f:10: spec.jobs[compute].environmentConfig[dev].cron: has no effect: this scheduler does not serve it",
        ],
    );
    check(
        "    secretRefs: {azureKeyVaults: [{name: v}]}\n",
        &[
            "f:7: spec.jobs[compute].secretRefs: has no effect, since no Azure Key Vault is read: name the variables \
             in `secrets`, and put their values in a Secret that has the job component's name",
        ],
    );
    check(
        "    volumeMounts:\n    - name: a\n      path: /a\n      blobFuse2: {container: c}\n",
        &[
            "f:8: spec.jobs[compute].volumeMounts[0]: has no effect, since volumes of Azure are not served: give emptyDir, \
             persistentVolumeClaim or configMap instead",
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
fn a_key_may_be_in_any_case_and_the_right_one_is_told() {
    let config = parsed(
        "Metadata: {name: app}\nspec:\n  environments: [{name: dev}]\n  jobs:\n  - Name: compute\n    \
         dockerFileName: d\n    schedulerport: 8000\n    variables: {Path: a, PATH: b}\n    \
         volumeMounts:\n    - {name: v, path: /v, blobfuse2: {}, Type: azure-blob}\n    \
         Notifications: {}\n",
    );
    let warnings: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings[..4],
        [
            "f:1: Metadata: is taken for `metadata`: write it so",
            "f:5: spec.jobs[compute].Name: is taken for `name`: write it so",
            "f:6: spec.jobs[compute].dockerFileName: is taken for `dockerfileName`: write it so",
            "f:7: spec.jobs[compute].schedulerport: is taken for `schedulerPort`: write it so",
        ]
    );
    let compute = config.job_component("dev", "compute").unwrap();
    assert_eq!(compute.scheduler_port, 8000);
    // The names of variables are the user's, as they are.
    assert_eq!(compute.settings.variables.len(), 2);
    assert_eq!(compute.volume_mounts, []);
    let error = parse("f", with_job("    SchedulerPort: 9000\n").as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f:7: spec.jobs[compute].SchedulerPort: is `schedulerPort` again, in another case: remove one"
    );
}

/// A component's fields with an environment's over them, as radix-operator has it.
#[test]
fn an_environment_merges_as_in_radix() {
    #[track_caller]
    fn check(base: &str, over: &str, show: fn(&JobComponent) -> String, expected: &str) {
        let config = parsed(&with_job(&format!(
            "    ports: [{{name: a, port: 1}}, {{name: b, port: 2}}]\n    {base}\n    \
             environmentConfig: [{{environment: dev, {over}}}]\n"
        )));
        let component = config.job_component("dev", "compute").unwrap();
        assert_eq!(show(&component), expected, "{base} + {over}");
    }
    let resources = |c: &JobComponent| {
        let requests = c.settings.resources.as_ref().map(|r| &r.requests);
        let names = requests.into_iter().flat_map(|r| r.keys().cloned());
        names.collect::<Vec<_>>().join(",")
    };
    check(
        "resources: {requests: {cpu: 1, memory: 1Gi}}",
        "resources: {requests: {cpu: 2}}",
        resources,
        "cpu",
    );
    check(
        "resources: {requests: {cpu: 1}}",
        "resources: {}",
        resources,
        "cpu",
    );
    check(
        "resources: {requests: {cpu: 1}}",
        "resources: {requests: {}}",
        resources,
        "",
    );
    let node = |c: &JobComponent| {
        let node = c.settings.node.as_ref().unwrap();
        format!("{:?} {:?}", node.gpu.as_deref(), node.gpu_count)
    };
    check(
        "node: {gpu: a, gpuCount: 2}",
        "node: {gpu: b}",
        node,
        "Some(\"b\") Some(2)",
    );
    check(
        "node: {gpu: a}",
        "node: {gpuCount: 4}",
        node,
        "Some(\"a\") Some(4)",
    );
    let runtime = |c: &JobComponent| format!("{:?}", c.settings.runtime);
    check(
        "runtime: {nodeType: a}",
        "runtime: {}",
        runtime,
        "Some(Any)",
    );
    check(
        "runtime: {nodeType: a}",
        "runtime: {architecture: arm64}",
        runtime,
        "Some(Architecture(Arm64))",
    );
    let variables = |c: &JobComponent| {
        let pairs = c.settings.variables.iter();
        let pairs: Vec<_> = pairs.map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(",")
    };
    check(
        "variables: {A: 1, B: 2}",
        "variables: {A: \"\"}",
        variables,
        "A=,B=2",
    );
    let monitoring = |c: &JobComponent| {
        let monitoring = c.monitoring.as_ref();
        monitoring.map_or("off".to_owned(), |m| format!("{} {}", m.port, m.path))
    };
    check(
        "monitoring: true",
        "backoffLimit: 1",
        monitoring,
        "1 /metrics",
    );
    check("monitoring: true", "monitoring: false", monitoring, "off");
    check(
        "monitoringConfig: {portName: b, path: m}",
        "monitoring: true",
        monitoring,
        "2 /m",
    );
    let volumes = |c: &JobComponent| mounts(c).join(", ");
    check(
        "volumeMounts: [{name: a, path: /a, emptyDir: {sizeLimit: 1Gi}}]",
        "volumeMounts: [{name: b, path: /b, emptyDir: {}}, {name: a, path: /c, emptyDir: {}}]",
        volumes,
        "a /c emptyDir 1Gi, b /b emptyDir -",
    );
    check(
        "volumeMounts: [{name: a, path: /a, emptyDir: {}}]",
        "volumeMounts: []",
        volumes,
        "a /a emptyDir -",
    );
    let words = |c: &JobComponent| format!("{:?}", c.settings.command);
    check("command: [a]", "command: []", words, "Some([])");
    let limits = |c: &JobComponent| format!("{:?}", c.settings.backoff_limit);
    check("backoffLimit: 3", "backoffLimit: 0", limits, "Some(0)");
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
