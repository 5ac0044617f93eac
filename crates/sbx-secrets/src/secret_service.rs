//! The Secret Service of a Linux desktop (GNOME Keyring, KWallet, KeePassXC), over the session bus.

use crate::keychain::{SecretStore, Trouble};
use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error};
use sbx_wire::secret::SecretText;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use zbus::blocking::Connection;
use zbus::zvariant::OwnedObjectPath;
use zbus_secret_service_keyring_store::Store;

const NAME: &str = "org.freedesktop.secrets";
const PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
/// The attribute that tells our entries from others.
const OURS: &str = "sbx";

/// See the module.
#[derive(Debug)]
pub struct SecretService;

impl SecretService {
    /// Finds the bus of the session.
    ///
    /// # Errors
    /// There is none.
    pub fn connect() -> Result<Box<dyn SecretStore>, Trouble> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = variable("DBUS_SESSION_BUS_ADDRESS").is_some();
        // Without this look a default that is not this session's would be tried.
        let usual =
            variable("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("bus").exists());
        if named || usual {
            Ok(Box::new(Self))
        } else {
            Err(Trouble::Absent("this session has no D-Bus".to_owned()))
        }
    }
}

impl SecretStore for SecretService {
    fn is_locked(&self) -> Result<bool, Trouble> {
        let bus = Connection::session().map_err(absent)?;
        let answer = bus
            .call_method(Some(NAME), PATH, Some(SERVICE), "ReadAlias", &"default")
            .map_err(absent)?;
        let collection: OwnedObjectPath = answer.body().deserialize().map_err(absent)?;
        if collection.as_str() == "/" {
            // There is none yet: to make one, a password has to be chosen.
            return Ok(true);
        }
        let properties = "org.freedesktop.DBus.Properties";
        let asked = (COLLECTION, "Locked");
        let answer = bus
            .call_method(Some(NAME), &collection, Some(properties), "Get", &asked)
            .map_err(absent)?;
        let body = answer.body();
        let value: zbus::zvariant::Value<'_> = body.deserialize().map_err(absent)?;
        value.downcast().map_err(absent)
    }

    fn get(&self, id: &str) -> Result<SecretText, Trouble> {
        let value = entry(id, OURS)?.get_password().map_err(trouble)?;
        Ok(SecretText::new(value))
    }

    fn set(&self, id: &str, label: &str, value: &SecretText) -> Result<(), Trouble> {
        let entry = entry(id, label)?;
        entry.set_password(value.expose()).map_err(trouble)
    }

    fn remove(&self, id: &str) -> Result<(), Trouble> {
        entry(id, OURS)?.delete_credential().map_err(trouble)
    }
}

fn entry(id: &str, label: &str) -> Result<Entry, Trouble> {
    let store: Arc<Store> = Store::new().map_err(trouble)?;
    let label = HashMap::from([("label", label)]);
    store.build(OURS, id, Some(&label)).map_err(trouble)
}

fn absent(error: impl std::fmt::Display) -> Trouble {
    Trouble::Absent(error.to_string())
}

fn trouble(error: Error) -> Trouble {
    match error {
        Error::NoEntry => Trouble::NoEntry,
        Error::NoStorageAccess(_) => Trouble::Locked,
        other => Trouble::Failed(other.to_string()),
    }
}
