//! `kill -9` of redis-server, and of one of two gateways on it.

use std::time::Duration;

use super::{Behaviour, Crowd, Figures, Service, Site, emptied};
use crate::harness::{Gateway, RedisServer};

/// Ends the entries of messages that have been on their way for more than three seconds: no sender here waits so long, so
/// nobody works on them any more. By themselves they end after a minute.
const A_MINUTE_PASSES: &str = "local t = redis.call('TIME')
local now, gone = t[1] * 1000 + math.floor(t[2] / 1000), 0
for _, key in ipairs(redis.call('KEYS', 'tollgate:{replay}:*')) do
  local ends = string.match(redis.call('GET', key), ':p (%d+) ')
  if ends and tonumber(ends) < now + 57000 then gone = gone + redis.call('DEL', key) end
end
return gone";

/// Finishes while what is left over in the store runs out.
async fn finish(crowd: Crowd, redis: &RedisServer) -> super::crowd::Told {
    let passing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            redis.eval(A_MINUTE_PASSES).await.expect("redis-server answers");
        }
    };
    tokio::select! {
        told = crowd.finish() => told,
        () = passing => unreachable!("it never ends"),
    }
}

/// Claims of a gateway that was killed, or never heard that it has them, last for ten seconds more than `timeout`.
fn site(redis: &RedisServer, service: &Service) -> Site {
    let inbox = ", timeout: 1s, attempts: 1000, schedule: [20ms], concurrency: 16";
    Site { inbox, ..Site::new(redis.state("1s"), service.upstream.address) }
}

async fn are_up(gateways: &[Gateway]) {
    for gateway in gateways {
        gateway.counts(&[("tollgate_replay_store_up", 1.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_redis_lose_nothing_that_two_gateways_acknowledged() {
    let mut redis = RedisServer::start_durable().await;
    let service = Service::start(Behaviour::Busy).await;
    let site = site(&redis, &service);
    let gateways = [site.start().await, site.start().await];
    are_up(&gateways).await;
    let crowd = Crowd::gather(8);
    crowd.send_to(&[gateways[0].address, gateways[1].address]);
    for _ in 0..4 {
        crowd.heard_acknowledged(100).await;
        redis.kill();
        crowd.heard_refused("STATE_UNAVAILABLE", 50).await;
        redis.run().await;
    }
    crowd.heard_acknowledged(100).await;
    let told = finish(crowd, &redis).await;
    emptied(&gateways[0]).await;
    for gateway in gateways {
        gateway.stop().await;
    }
    let figures = Figures::of(&told, &service.arrivals(), |_| false);
    eprintln!("4 kills of redis-server: {figures}");
    assert_eq!(figures.cut, 0, "the gateways never went: {figures}");
}

/// What a gateway had when it was killed is delivered by the other one, when its claims have run out.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_over_what_another_one_had() {
    let redis = RedisServer::start_durable().await;
    let service = Service::start(Behaviour::Slow(Duration::from_millis(200))).await;
    let site = site(&redis, &service);
    let gateways = [site.start().await, site.start().await];
    are_up(&gateways).await;
    let crowd = Crowd::gather(8);
    crowd.send_to(&[gateways[0].address, gateways[1].address]);
    crowd.heard_acknowledged(300).await;
    let [mut dies, stays] = gateways;
    dies.signal("KILL");
    dies.ended().await;
    crowd.send_to(&[stays.address]);
    let told = finish(crowd, &redis).await;
    emptied(&stays).await;
    let arrivals = service.arrivals();
    let figures = Figures::of(&told, &arrivals, |_| false);
    eprintln!("a kill of one of two gateways: {figures}");
    assert!(figures.again > 0, "it had some that were being delivered: {figures}");
    stays.stop().await;
}
