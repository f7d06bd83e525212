//! Any file is a configuration, or an error of a few lines. What is read resolves for each environment.

#![no_main]

use job_scheduler::config::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    match parse("radixconfig.yaml", file) {
        Ok(config) => {
            assert!(!config.environments.is_empty());
            for environment in &config.environments {
                let all = config.job_components(environment).unwrap_or_default();
                for component in all {
                    let one = config.job_component(environment, &component.name).unwrap();
                    assert_eq!(one, component);
                    assert!(component.scheduler_port >= 1024);
                    assert!(component.namespace().len() <= 63);
                }
            }
            for warning in &config.warnings {
                assert!(!warning.to_string().contains('\n'));
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() < 256 * 1024);
            assert!(!message.contains(['\r', '\0', '\u{1b}']), "{message:?}");
        }
    }
});
