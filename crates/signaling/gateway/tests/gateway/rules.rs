//! Rules: what of a request decides where its room is placed, or that it is not served.

use std::path::PathBuf;

use reqwest::Method;
use signalbox_protocol::placement::{PlaceRoom, Policy, Track};

use crate::cluster::{Cluster, JOIN, KEY_SECRET, OFFER, claims, eventually, problem, sign};

const RULES: &str = r#"
regions = ["eu", "us"]

[[rule]]
name = "testers"
when = { cookie = { group = "canary" } }
then = { track = "canary" }

[[rule]]
name = "gold"
when = { claim = { "attributes.plan" = "gold" } }
then = { labels = { disk = "ssd" }, policy = "packing" }

[[rule]]
name = "german"
when = { path = "/v1/rooms/", language = "de" }
then = { region = "eu" }

[[rule]]
name = "retired"
when = { path = "/v0/" }
then = { respond = { status = 410, detail = "Version 0 is no more; use /v1." } }
"#;

/// A file of a test's own, gone with it.
struct RulesFile(PathBuf);

impl RulesFile {
    fn new(test: &str, text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("signalbox-rules-{test}-{}.toml", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn flag(&self) -> String {
        format!("--rules={}", self.0.display())
    }
}

impl Drop for RulesFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What the orchestrator was asked for this room's join with one more header.
async fn asked(cluster: &Cluster, room: &str, plan: Option<&str>, header: (&str, &str)) -> PlaceRoom {
    let mut claims = claims(room, "ann");
    if let Some(plan) = plan {
        claims.attributes.insert("plan".into(), plan.into());
    }
    let request = cluster.bare(Method::POST, &JOIN.replace("daily", room));
    let request = request
        .bearer_auth(sign(&claims, KEY_SECRET))
        .header(header.0, header.1);
    let response = request
        .header("content-type", "application/json")
        .body(OFFER)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let request = cluster.orchestrator.requests().pop().unwrap();
    assert_eq!(request.room.as_str(), room);
    request
}

#[tokio::test]
async fn the_first_rule_that_matches_says_where_a_room_is_placed() {
    let file = RulesFile::new("first", RULES);
    let cluster = Cluster::start_with(&[&file.flag()]).await;
    let canary = asked(&cluster, "a", Some("gold"), ("cookie", "group=canary")).await;
    assert_eq!(
        (canary.prefer, canary.rule.as_deref()),
        (Some(Track::Canary), Some("testers"))
    );
    assert_eq!(
        (canary.track, canary.policy),
        (None, None),
        "a preference, and nothing of the others"
    );
    let gold = asked(&cluster, "b", Some("Gold"), ("accept-language", "de")).await;
    assert_eq!(
        (gold.rule.as_deref(), gold.policy),
        (Some("gold"), Some(Policy::Packing))
    );
    assert_eq!(gold.labels["disk"], "ssd");
    let german = asked(&cluster, "c", None, ("accept-language", "de-AT, en;q=0.5")).await;
    assert_eq!(
        (german.rule.as_deref(), german.region.as_deref()),
        (Some("german"), Some("eu"))
    );
    let other = asked(&cluster, "d", None, ("accept-language", "en")).await;
    assert_eq!((other.rule, other.region), (None, None));
}

#[tokio::test]
async fn a_rule_may_answer_and_the_request_goes_no_further() {
    let file = RulesFile::new("answer", RULES);
    let cluster = Cluster::start_with(&[&file.flag()]).await;
    let response = cluster.request(Method::GET, "/v0/rooms").send().await.unwrap();
    let (status, kind, detail) = problem(response).await;
    assert_eq!((status, kind.as_str()), (410, "ruled-out"));
    assert_eq!(detail, "Version 0 is no more; use /v1.");
}

#[tokio::test]
async fn rules_change_without_a_restart_and_bad_ones_change_nothing() {
    let file = RulesFile::new("change", RULES);
    let cluster = Cluster::start_with(&[&file.flag()]).await;
    let in_use = async || {
        let url = format!("http://{}/rules", cluster.admin);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    assert_eq!(in_use().await, RULES);
    file.write(&RULES.replace("\"eu\" }", "\"mars\" }"));
    cluster.reload.send_modify(|count| *count += 1);
    eventually("the refusal", async {
        while cluster.metric("rule_reload_failures_total").await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(in_use().await, RULES);
    // The file is looked at without being told as well.
    file.write("[[rule]]\nname = 'all'\nthen = { region = 'us' }\n");
    eventually("the new rules", async {
        while cluster.metric("rule_reloads_total").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let request = asked(&cluster, "e", None, ("accept-language", "de")).await;
    assert_eq!(request.region.as_deref(), Some("us"));
}

#[tokio::test]
async fn a_gateway_does_not_start_with_rules_that_cannot_be_used() {
    let file = RulesFile::new("start", &RULES.replace("canary\" }", "beta\" }"));
    let mut cluster = Cluster::start_with(&[&file.flag()]).await;
    let error = eventually("the end", &mut cluster.running).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("unknown variant `beta`"), "{error}");
}
