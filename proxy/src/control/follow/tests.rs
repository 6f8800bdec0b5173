use etna_store::Txn;
use etna_store::engine::memory;

use super::*;

async fn until(state: &State, revision: Revision) {
    let reached = async {
        while state.live.table().revision < revision {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
}

#[tokio::test]
async fn changes_of_a_storm_share_tables() {
    let engine = memory::open();
    let state = Arc::new(State::new(engine.clone()));
    let following = tokio::spawn(Control::new(state.clone(), Listeners::new(Vec::new())).run());
    let put = async |number: u32| {
        engine.commit(Txn::put(format!("backends/b{number}/backend"), r#"{"Type":"http"}"#)).await.unwrap()
    };
    until(&state, put(0).await).await;
    let (began, before) = (Instant::now(), state.store().publishes);
    let mut last = Revision::default();
    for number in 1..=400 {
        last = put(number).await;
    }
    until(&state, last).await;
    let published = u128::from(state.store().publishes - before);
    // One at the beginning, one at the end, one that is counted late, and one for each rest between.
    assert!(published <= began.elapsed().as_millis() / BETWEEN_TABLES.as_millis() + 3, "{published}");
    state.draining.cancel();
    let _ = following.await.unwrap().1.await;
}
