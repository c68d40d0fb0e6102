//! Asking the orchestrators, of which any will do.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{Secret, Secrets};

use crate::exit::Usage;

/// How long to wait for one orchestrator.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may take to come up: one that is away should not keep an operator from the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which cluster.
#[derive(Debug, Args)]
pub struct Cluster {
    /// The orchestrators' URLs, separated by commas. When one does not answer the next is asked.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SIGNALBOX_ORCHESTRATOR",
        default_value = "http://127.0.0.1:7890"
    )]
    orchestrator: String,
    /// The secret that the cluster's processes share; of several with commas between them the first. Prefer the environment
    /// variable: the process list is public.
    #[arg(
        long,
        global = true,
        value_name = "SECRET",
        env = "SIGNALBOX_CLUSTER_SECRET",
        hide_env_values = true
    )]
    cluster_secret: Option<String>,
}

impl Cluster {
    /// Fails with [`Usage`] when the secret or a URL cannot be used.
    pub fn orchestrators(&self) -> anyhow::Result<Orchestrators> {
        let secret = self.cluster_secret.as_deref().ok_or_else(|| {
            Usage("set SIGNALBOX_CLUSTER_SECRET to the secret that the cluster's processes share, or give it as --cluster-secret".into())
        })?;
        let secrets: Secrets = secret
            .parse()
            .map_err(|error| Usage(format!("--cluster-secret: {error}")))?;
        Orchestrators::new(&self.orchestrator, secrets.current().clone())
    }
}

/// The orchestrators of a cluster.
#[derive(Debug)]
pub struct Orchestrators {
    client: Client,
    urls: Vec<Url>,
    secret: Secret,
}

/// What is asked.
struct Asked<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<&'a serde_json::Value>,
}

impl Orchestrators {
    /// `urls` are separated by commas.
    pub fn new(urls: &str, secret: Secret) -> anyhow::Result<Self> {
        let url = |text: &str| {
            let url = text.trim().parse().ok().filter(|url: &Url| url.scheme() == "http");
            url.ok_or_else(|| {
                Usage(format!(
                    "--orchestrator: `{text}` is not a URL like http://10.0.0.5:7890"
                ))
            })
        };
        Ok(Self {
            client: Client::builder().connect_timeout(CONNECT_TIMEOUT).build()?,
            urls: urls.split(',').map(url).collect::<Result<_, _>>()?,
            secret,
        })
    }

    /// Gets `/v1/` and the path's segments; none: there is no such thing. Asks one after another until one answers; one that says that it cannot answer at
    /// the moment does not.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Option<T>> {
        self.call(Method::GET, path, query, None).await
    }

    /// The same with another method, and a body if there is one. To be used only where twice is as good as once.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<Option<T>> {
        let asked = Asked {
            method,
            path,
            query,
            body,
        };
        let mut failure = anyhow!("no orchestrator is named");
        for base in &self.urls {
            match self.ask(base, &asked).await {
                Ok(answer) => return answer,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The outer error is this orchestrator's own, the inner one any other's too.
    async fn ask<T: DeserializeOwned>(
        &self,
        base: &Url,
        asked: &Asked<'_>,
    ) -> anyhow::Result<anyhow::Result<Option<T>>> {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(asked.path);
        }
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(asked.query);
        }
        let mut request = self.client.request(asked.method.clone(), url);
        if let Some(body) = asked.body {
            request = request.json(body);
        }
        let response = request
            .bearer_auth(self.secret.expose())
            .timeout(PATIENCE)
            .send()
            .await
            // reqwest's own text repeats the URL.
            .map_err(reqwest::Error::without_url)
            .with_context(|| {
                format!("the orchestrator at {base} does not answer; is it running, and is --orchestrator right?")
            })?;
        let status = response.status();
        if status.is_success() {
            let answer = response.json().await.map(Some);
            return answer
                .map(Ok)
                .map_err(reqwest::Error::without_url)
                .with_context(|| format!("{base} does not answer as an orchestrator of this version does"));
        }
        let problem = response.json::<Problem>().await.ok();
        if status == StatusCode::NOT_FOUND && problem.is_some() {
            return Ok(Ok(None));
        }
        let detail = problem.map_or_else(
            || "that is not an orchestrator's answer; is --orchestrator right?".to_owned(),
            |problem| problem.detail,
        );
        let error = anyhow!("the orchestrator at {base} answered {status}: {detail}");
        if status.is_server_error() {
            Err(error)
        } else {
            Ok(Err(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_and_several_secrets_can_be_given() {
        let cluster = |orchestrator: &str, secret: Option<&str>| Cluster {
            orchestrator: orchestrator.to_owned(),
            cluster_secret: secret.map(str::to_owned),
        };
        let secrets = "0123456789abcdef,fedcba9876543210";
        let all = cluster("http://a:1, http://b:2", Some(secrets))
            .orchestrators()
            .unwrap();
        assert_eq!(all.urls.len(), 2);
        assert_eq!(all.secret.expose(), "0123456789abcdef");
        for (orchestrator, secret, says) in [
            ("http://a:1,", Some(secrets), "not a URL"),
            ("https://a:1", Some(secrets), "not a URL"),
            ("http://a:1", Some("short"), "16 bytes"),
            ("http://a:1", None, "SIGNALBOX_CLUSTER_SECRET"),
        ] {
            let error = cluster(orchestrator, secret).orchestrators().unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(says), "{error}");
        }
    }
}
