//! Which devices there are, and opening the one that is wanted.
use super::{Api, Device, DeviceInfo, emulator, metal, streams};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// A device that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How it is spoken to.
    pub api: Api,
    /// Its number; the first that fits if absent.
    pub number: Option<usize>,
    /// Threads of a subgroup that it must have, where it matters.
    pub subgroup: Option<u32>,
    /// The folder in which the emulated driver is built; `None` for the real one.
    pub emulator: Option<PathBuf>,
}

/// The devices of one API, or why there are none.
pub struct Found {
    /// The API.
    pub api: Api,
    /// Its devices.
    pub devices: std::result::Result<Vec<DeviceInfo>, Error>,
}

/// Asks every driver of this machine for its devices.
pub fn found() -> Vec<Found> {
    Api::ALL.iter().map(|(_, api)| Found { api: *api, devices: devices(*api, None) }).collect()
}

fn devices(api: Api, emulator: Option<&PathBuf>) -> Result<Vec<DeviceInfo>> {
    let library = emulator.map(|cache| emulator::library(api, cache)).transpose()?;
    let library = library.as_deref();
    match api {
        Api::Cuda | Api::Hip => streams::devices(api, library),
        Api::Metal => metal::devices(library),
    }
}

/// Opens a device.
///
/// # Errors
/// No driver, or no device that fits; the message lists the devices that were found.
pub fn open(wanted: &Wanted) -> Result<Arc<dyn Device>> {
    let listed = devices(wanted.api, wanted.emulator.as_ref());
    let all = listed.map_err(|why| missing(wanted, &why.to_string()))?;
    let fits = |d: &&DeviceInfo| {
        wanted.number.is_none_or(|n| n == d.number) && wanted.subgroup.is_none_or(|n| n == d.subgroup)
    };
    let Some(info) = all.iter().find(fits) else {
        let number = wanted.number.map_or(String::new(), |n| format!(" {n}"));
        let with = wanted.subgroup.map_or(String::new(), |n| format!(" with subgroups of {n} threads"));
        return Err(missing(wanted, &format!("expected device{number}{with}")));
    };
    let library = wanted.emulator.as_ref().map(|cache| emulator::library(wanted.api, cache)).transpose()?;
    let library = library.as_deref();
    match wanted.api {
        Api::Cuda | Api::Hip => streams::open(wanted.api, info.number, library),
        Api::Metal => metal::open(info.number, library),
    }
}

fn missing(wanted: &Wanted, why: &str) -> Error {
    let mut text = format!("{}: {why}; devices found:", wanted.api);
    let mut none = true;
    for Found { devices, .. } in found() {
        for device in devices.into_iter().flatten() {
            text += &format!("\n  {device}");
            none = false;
        }
    }
    Error::Device(text + if none { " none" } else { "" })
}
