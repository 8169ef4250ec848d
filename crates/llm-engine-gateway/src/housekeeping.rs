use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::admit::Limits;

/// How much of what must outlive a restart can be lost by a failure of power.
const PERIOD: Duration = Duration::from_secs(1);
/// Calendars reach further ahead than that by far.
const LOOK_AT_THE_WALL: Duration = Duration::from_secs(3600);
/// The clock on the wall is slewed all the time; further than this it has been set.
const IS_SET: Duration = Duration::from_millis(500);

/// What has to happen in the background: every second what must outlive a restart goes to the disk, and the clock on the
/// wall is looked at, by which calendar windows begin. At the end it goes to the disk once more.
pub(crate) async fn keep_house(limits: Arc<Limits>, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut wall_offset = limits.wall_offset();
    let mut seconds = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        keep(&limits).await;
        seconds += 1;
        let offset = limits.wall_offset();
        if offset.abs_diff(wall_offset) > IS_SET || seconds % LOOK_AT_THE_WALL.as_secs() == 0 {
            limits.look_at_the_wall();
            wall_offset = offset;
        }
    }
    keep(&limits).await;
}

async fn keep(limits: &Arc<Limits>) {
    if !limits.has_journal() {
        return;
    }
    let limits = Arc::clone(limits);
    match tokio::task::spawn_blocking(move || limits.keep()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "limits are not kept over a restart"),
        Err(panic) => tracing::error!(%panic, "limits are not kept over a restart"),
    }
}
