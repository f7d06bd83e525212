//! The same objects in protobuf: the numbers of the fields that are read.
//!
//! Source: `generated.proto` in <https://github.com/kubernetes/api> (`batch/v1`, `core/v1`) and
//! <https://github.com/kubernetes/apimachinery> (`pkg/apis/meta/v1`, `pkg/runtime`).

use super::{
    Condition, ContainerState, ContainerStatus, JobObject, JobSpec, JobStatus, Metadata,
    OnExitCodes, PodObject, PodSpec, PodStatus, Policy, PolicyRule, Reason, Running, Terminated,
    is_read,
};
use crate::backend::kubernetes::protobuf::{Malformed, Message, Value, decode};
use crate::job::Timestamp;

/// Before every object that stands by itself.
const MAGIC: &[u8] = b"k8s\0";

/// An event of a watch, its object not yet decoded.
#[derive(Default)]
pub struct Event<'a> {
    pub kind: &'a [u8],
    pub object: &'a [u8],
}

impl<'a> Message<'a> for Event<'a> {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.kind = value.bytes()?,
            2 => self.object = value.message::<Raw>()?.0,
            _ => {}
        }
        Ok(())
    }
}

/// `RawExtension`, in which an event has its object.
#[derive(Default)]
struct Raw<'a>(&'a [u8]);

impl<'a> Message<'a> for Raw<'a> {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 1 {
            self.0 = value.bytes()?;
        }
        Ok(())
    }
}

/// `Unknown`, in which an object stands with its kind.
#[derive(Default)]
struct Enveloped<'a>(&'a [u8]);

impl<'a> Message<'a> for Enveloped<'a> {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 2 {
            self.0 = value.bytes()?;
        }
        Ok(())
    }
}

/// Reads an object that stands by itself.
pub fn decode_object<'a, T: Message<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Malformed)?;
    decode(decode::<Enveloped>(envelope)?.0)
}

#[derive(Default)]
struct Time(Option<Timestamp>);

impl<'a> Message<'a> for Time {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 1 {
            self.0 = Some(Timestamp::at(value.signed()?));
        }
        Ok(())
    }
}

fn time(value: Value) -> Result<Option<Timestamp>, Malformed> {
    Ok(value.message::<Time>()?.0)
}

/// One of the labels or annotations.
#[derive(Default)]
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Message<'a> for Entry<'a> {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.key = value.bytes()?,
            2 => self.value = value.bytes()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Metadata {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.name = value.text()?,
            5 => self.uid = value.text()?,
            6 => self.resource_version = value.text()?,
            8 => self.creation_timestamp = time(value)?,
            9 => self.deletion_timestamp = time(value)?,
            11 | 12 => {
                let entry: Entry = value.message()?;
                let kept = match field {
                    11 => &mut self.labels,
                    _ => &mut self.annotations,
                };
                if let Some(key) = str::from_utf8(entry.key).ok().filter(|key| is_read(key)) {
                    let text = String::from_utf8_lossy(entry.value).into_owned();
                    kept.insert(key.to_string(), text);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for JobObject {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.metadata = value.message()?,
            2 => self.spec = value.message()?,
            3 => self.status = value.message()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for JobSpec {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            7 => self.backoff_limit = value.number()?,
            10 => self.suspend = value.signed()? != 0,
            11 => self.pod_failure_policy = Some(value.message()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Policy {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 1 {
            self.rules.push(value.message()?);
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PolicyRule {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.action = value.text()?,
            2 => self.on_exit_codes = Some(value.message()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for OnExitCodes {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.container_name = Some(value.text()?),
            2 => self.operator = value.text()?,
            3 => self.values.push(value.number()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PodSpec {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 5 {
            self.active_deadline_seconds = Some(value.signed()?);
        }
        Ok(())
    }
}

impl<'a> Message<'a> for JobStatus {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.conditions.push(value.message()?),
            2 => self.start_time = time(value)?,
            3 => self.completion_time = time(value)?,
            4 => self.active = value.number()?,
            6 => self.failed = value.number()?,
            11 => self.terminating = value.number()?,
            _ => {}
        }
        Ok(())
    }
}

/// Of a Job and of a pod alike.
impl<'a> Message<'a> for Condition {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.r#type = value.text()?,
            2 => self.status = value.text()?,
            4 => self.last_transition_time = time(value)?,
            5 => self.reason = value.text()?,
            6 => self.message = value.text()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PodObject {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.metadata = value.message()?,
            2 => self.spec = value.message()?,
            3 => self.status = value.message()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PodStatus {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.phase = value.text()?,
            2 => self.conditions.push(value.message()?),
            3 => self.message = value.text()?,
            4 => self.reason = value.text()?,
            7 => self.start_time = time(value)?,
            8 => self.container_statuses.push(value.message()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for ContainerStatus {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.name = value.text()?,
            2 => self.state = value.message()?,
            5 => self.restart_count = value.number()?,
            6 => self.image = value.text()?,
            7 => self.image_id = value.text()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for ContainerState {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.waiting = Some(value.message()?),
            2 => self.running = Some(value.message()?),
            3 => self.terminated = Some(value.message()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Reason {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.reason = value.text()?,
            2 => self.message = value.text()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Running {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        if field == 1 {
            self.started_at = time(value)?;
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Terminated {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            1 => self.exit_code = value.number()?,
            3 => self.reason = value.text()?,
            4 => self.message = value.text()?,
            5 => self.started_at = time(value)?,
            6 => self.finished_at = time(value)?,
            _ => {}
        }
        Ok(())
    }
}
