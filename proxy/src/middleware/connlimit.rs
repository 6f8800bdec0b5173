//! `connlimit`: so many requests at once for each value of a variable, as vulcand's connection limiter.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::variable::Variable;
use super::{Answer, BadSettings, Kind, Middleware, Next, Request, Response};
use crate::error::Error;

/// What the store calls it.
pub(super) const KIND: Kind = Kind { name: "connlimit", build };

#[derive(Deserialize)]
struct Settings {
    #[serde(alias = "connections", rename = "Connections")]
    connections: u32,
    #[serde(alias = "variable", rename = "Variable", default = "client_ip")]
    variable: String,
}

struct ConnLimit {
    most: u32,
    variable: Variable,
    running: Arc<Running>,
    keys: RandomState,
}

type Running = Mutex<HashMap<u64, u32>>;

/// One request counted against its value's limit until its response has ended or the client has left.
struct Permit {
    running: Arc<Running>,
    value: u64,
}

impl Permit {
    fn take(running: &Arc<Running>, value: u64, most: u32) -> Option<Permit> {
        let mut counts = running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(value).or_default();
        if *count >= most {
            if *count == 0 {
                counts.remove(&value);
            }
            return None;
        }
        *count += 1;
        Some(Permit { running: running.clone(), value })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.value) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.value);
            }
        }
    }
}

impl Middleware for ConnLimit {
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Answer<'a> {
        let permit =
            Permit::take(&self.running, self.variable.of(&request.head, request.client, &self.keys), self.most);
        Box::pin(async move {
            let Some(permit) = permit else { return Err(Error::Limited(1)) };
            let response = next.run(request).await?;
            Ok(Response { body: response.body.guarded(permit), ..response })
        })
    }
}

fn build(settings: &RawValue) -> Result<Arc<dyn Middleware>, BadSettings> {
    let settings: Settings = serde_json::from_str(settings.get()).map_err(|error| BadSettings {
        reason: format!("connlimit: {error}"),
        hint: r#"write {"Connections":10,"Variable":"client.ip"}"#.into(),
    })?;
    Ok(Arc::new(ConnLimit {
        most: settings.connections,
        variable: Variable::parse(&settings.variable)?,
        running: Arc::default(),
        keys: RandomState::new(),
    }))
}

fn client_ip() -> String {
    "client.ip".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_given_back_when_dropped() {
        let running = Arc::new(Running::default());
        let first = Permit::take(&running, 1, 1);
        assert!(first.is_some());
        assert!(Permit::take(&running, 1, 1).is_none());
        assert!(Permit::take(&running, 2, 1).is_some());
        drop(first);
        assert!(Permit::take(&running, 1, 1).is_some());
        assert!(running.lock().unwrap().is_empty());
    }
}
