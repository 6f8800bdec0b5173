//! `etna_sidekick::docker`: whatever an engine answers, each call ends with a value or an error.

use etna_sidekick::docker::Docker;

use super::super::socket;

/// A letter for the call, then the answer as it comes over the connection.
pub fn check(data: &[u8]) {
    let Some((call, answer)) = data.split_first() else { return };
    socket::answer(answer, async |path| {
        let docker = Docker::new(&format!("unix://{}", path.display())).unwrap();
        match call {
            b'v' => drop(docker.version().await),
            b'r' => drop(docker.running().await),
            b'i' => drop(docker.inspect("wordpress-1").await),
            _ => {
                let Ok(mut events) = docker.events(1).await else { return };
                while let Ok(Some(_)) = events.next().await {}
            }
        }
    });
}
