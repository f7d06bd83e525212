//! `volumeMounts`: what is mounted in a job beside its payload.

use super::component::MAX_ITEMS;
use super::fields::{Fields, Item};
use super::settings::pick;
use super::{Quantity, QuantityError, VolumeMount, VolumeSource, names};
use std::collections::BTreeSet;

/// What only Azure has: any of these makes a volume one that is left out, with a warning.
const AZURE: [&str; 13] = [
    "type",
    "container",
    "storage",
    "gid",
    "uid",
    "skuName",
    "requestsStorage",
    "accessMode",
    "bindingMode",
    "streaming",
    "blobFuse2",
    "azureFile",
    "persistentVolume",
];
const LEFT_OUT: &str = "has no effect, since volumes of Azure are not served: give emptyDir, \
                        persistentVolumeClaim or configMap instead";

/// The mounts of a list. Those of Azure are left out.
pub fn volume_mounts(item: Item<'_>) -> Option<Vec<VolumeMount>> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in item.items_within(0..=MAX_ITEMS)? {
        let Some(mut fields) = item.mapping() else {
            continue;
        };
        let name = fields
            .require("name", "give the volume a name, such as scratch")
            .and_then(|item| item.parsed(names::volume_name));
        let path = fields
            .require(
                "path",
                "give the folder to mount the volume in, such as /scratch",
            )
            .and_then(|item| item.parsed(names::folder));
        if let Some(name) = &name
            && !seen.insert(name.clone())
        {
            fields.error(format!(
                "the volume name `{name}` is there twice: rename one"
            ));
        }
        let source = source(&mut fields);
        fields.finish();
        if let (Some(name), Some(path), Some(source)) = (name, path, source) {
            mounts.push(VolumeMount { name, path, source });
        }
    }
    Some(mounts)
}

/// The one source of a volume; `None` if it is wrong, which is reported, or Azure's.
fn source(fields: &mut Fields<'_>) -> Option<VolumeSource> {
    let is_azure = AZURE.iter().any(|name| fields.has(name));
    fields.leave(&AZURE);
    let sources = [
        fields.take("emptyDir").map(empty_dir),
        fields.take("persistentVolumeClaim").map(claim),
        fields.take("configMap").map(config_map),
    ];
    let mut given = sources.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(_), Some(_)) => {
            fields.error(
                "must have one of emptyDir, persistentVolumeClaim and configMap: remove the others",
            );
            None
        }
        (Some(source), None) => source,
        (None, _) if is_azure => {
            let (field, line) = (&fields.field, fields.line);
            fields.report().warn(field, line, LEFT_OUT);
            None
        }
        (None, _) => {
            fields.missing(
                "emptyDir",
                "give `emptyDir: {sizeLimit: 1Gi}`, or `emptyDir: {}` for no limit, or \
                 persistentVolumeClaim or configMap",
            );
            None
        }
    }
}

fn empty_dir(item: Item<'_>) -> Option<VolumeSource> {
    let mut fields = item.mapping()?;
    let size_limit = fields.take("sizeLimit").and_then(|item| {
        item.parsed_number(|text| {
            let quantity: Quantity = text
                .parse()
                .map_err(|error: QuantityError| error.to_string())?;
            match quantity.milli {
                1.. => Ok(quantity),
                _ => Err("must be over 0".to_owned()),
            }
        })
    });
    fields.finish();
    Some(VolumeSource::EmptyDir { size_limit })
}

fn claim(item: Item<'_>) -> Option<VolumeSource> {
    let mut fields = item.mapping()?;
    let claim_name = fields
        .require("claimName", "give the name of the PersistentVolumeClaim")
        .and_then(|item| item.parsed(names::object_name));
    let read_only = fields.take("readOnly").and_then(Item::boolean);
    fields.finish();
    Some(VolumeSource::PersistentVolumeClaim {
        claim_name: claim_name?,
        read_only,
    })
}

fn config_map(item: Item<'_>) -> Option<VolumeSource> {
    let mut fields = item.mapping()?;
    let name = fields
        .require("name", "give the name of the ConfigMap")
        .and_then(|item| item.parsed(names::object_name));
    fields.finish();
    Some(VolumeSource::ConfigMap { name: name? })
}

/// The mounts of a component with those of an environment: as in Radix, one of the same name takes
/// what the environment's says, field by field.
pub fn merged(base: &[VolumeMount], over: &[VolumeMount]) -> Vec<VolumeMount> {
    let mut mounts = base.to_vec();
    for mount in over {
        match mounts.iter_mut().find(|other| other.name == mount.name) {
            Some(below) => {
                below.path = mount.path.clone();
                below.source = over_source(&mount.source, &below.source);
            }
            None => mounts.push(mount.clone()),
        }
    }
    mounts
}

fn over_source(over: &VolumeSource, base: &VolumeSource) -> VolumeSource {
    use VolumeSource::{ConfigMap, EmptyDir, PersistentVolumeClaim};
    match (over, base) {
        (EmptyDir { size_limit: over }, EmptyDir { size_limit: base }) => EmptyDir {
            size_limit: pick(over, base),
        },
        (
            PersistentVolumeClaim {
                claim_name,
                read_only: over,
            },
            PersistentVolumeClaim {
                read_only: base, ..
            },
        ) => PersistentVolumeClaim {
            claim_name: claim_name.clone(),
            read_only: pick(over, base),
        },
        (EmptyDir { .. } | PersistentVolumeClaim { .. } | ConfigMap { .. }, _) => over.clone(),
    }
}

/// The volumes that would have two sources.
pub fn clashes(base: &[VolumeMount], over: &[VolumeMount]) -> Vec<String> {
    let mut clashes = Vec::new();
    for mount in over {
        let Some(below) = base.iter().find(|other| other.name == mount.name) else {
            continue;
        };
        let (own, other) = (mount.source.field(), below.source.field());
        if own != other {
            let name = &mount.name;
            clashes.push(format!(
                "the volume mount `{name}` has {own} here and {other} in the job component, and a \
                 volume has one source: rename one"
            ));
        }
    }
    clashes
}

impl VolumeSource {
    /// The field that gives it.
    fn field(&self) -> &'static str {
        match self {
            VolumeSource::EmptyDir { .. } => "emptyDir",
            VolumeSource::PersistentVolumeClaim { .. } => "persistentVolumeClaim",
            VolumeSource::ConfigMap { .. } => "configMap",
        }
    }
}
