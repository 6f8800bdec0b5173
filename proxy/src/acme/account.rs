//! The account with an authority: one per directory and mail address, its key sealed in the store, made by whichever
//! proxy needs it first.

use std::sync::Arc;

use etna_store::engine::{Compare, Op, Txn};
use etna_store::seal::Keyring;
use etna_store::{Engine, Error as StoreError};
use instant_acme::{Account, AccountCredentials, Error, NewAccount};
use zeroize::Zeroizing;

use super::http::Way;
use super::names;
use super::work::Failure;

/// Opens the account, or makes one.
pub(super) async fn open(
    engine: &Arc<dyn Engine>,
    keyring: &Keyring,
    way: &Way,
    directory: &str,
    email: Option<&str>,
) -> Result<Account, Failure> {
    let key = names::account(directory, email);
    if let Some(stored) = engine.get(&key).await? {
        return restore(keyring, way, directory, &key, &stored.value).await;
    }
    let contact = email.map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(way.clone()));
    let (account, credentials) = builder.create(&new, directory.to_owned(), None).await?;
    let plain = Zeroizing::new(serde_json::to_vec(&credentials).map_err(Error::from)?);
    let sealed = keyring.seal_bytes(&plain).map_err(|error| Failure::Unable(error.to_string()))?;
    let put = Op::Put(key.clone(), sealed.into(), None);
    match engine.commit(Txn { compares: vec![Compare::Absent(key.clone())], ops: vec![put] }).await {
        Ok(_) => {
            tracing::info!(directory, account = account.id(), "made an account with an authority");
            Ok(account)
        }
        Err(StoreError::Conflict) => {
            // Another proxy was first: one account is enough.
            let _ = account.deactivate().await;
            let stored = engine.get(&key).await?.ok_or(StoreError::Conflict)?;
            restore(keyring, way, directory, &key, &stored.value).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn restore(keyring: &Keyring, way: &Way, directory: &str, key: &str, sealed: &[u8]) -> Result<Account, Failure> {
    let plain =
        keyring.open_bytes(sealed).map_err(|error| Failure::Unable(format!("the account in {key}: {error}")))?;
    // Of an error nothing is told: it may quote what it read.
    let credentials: AccountCredentials = serde_json::from_slice(&plain).map_err(|_| {
        Failure::Unable(format!("what is sealed in {key} is no account: delete it, and one is made anew"))
    })?;
    let place = credentials_directory(&plain);
    if place.as_deref() != Some(directory) {
        return Err(Failure::Unable(format!("the account in {key} is for another directory: delete it")));
    }
    Ok(Account::builder_with_http(Box::new(way.clone())).from_credentials(credentials).await?)
}

fn credentials_directory(plain: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Place {
        directory: String,
    }
    serde_json::from_slice::<Place>(plain).ok().map(|place| place.directory)
}

/// Forgets an account that its authority does not know any more, so that the next attempt makes one.
pub(super) async fn forget(engine: &Arc<dyn Engine>, directory: &str, email: Option<&str>) -> Result<(), StoreError> {
    let key = names::account(directory, email);
    let Some(stored) = engine.get(&key).await? else { return Ok(()) };
    tracing::warn!(directory, "the authority does not know our account: another one is made");
    let txn = Txn { compares: vec![Compare::Unchanged(key.clone(), stored.revision)], ops: vec![Op::Delete(key)] };
    engine.commit(txn).await.map(drop)
}
