//! `signalbox token`: signs an access token. It talks to nobody.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use jsonwebtoken::{EncodingKey, Header};
use signalbox_protocol::control::Quality;
use signalbox_protocol::token::{AccessClaims, LimitsClaim, VideoGrant};
use signalbox_protocol::{Identity, RoomName, Secret};

use crate::exit::Usage;

/// The API key that `signalbox dev` accepts.
pub const DEV_KEY: &str = "devkey";

/// Its secret. It is in the documentation, so it protects nothing.
pub const DEV_SECRET: &str = "devsecret-devsecret-devsecret-123";

/// Print a token that lets one identity join one room.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox token --room daily --identity ann\n  \
    signalbox token --room daily --identity tv --ttl 30m --can-publish false --hidden\n  \
    signalbox token --room daily --identity host --room-admin\n  \
    SIGNALBOX_KEYS=mykey:mysecret-mysecret signalbox token --room daily --identity ann --ttl 7d")]
pub struct Token {
    /// The room that the token is for.
    #[arg(long)]
    room: RoomName,
    /// Who joins with it. Joining again with the same identity ends the first stay.
    #[arg(long)]
    identity: Identity,
    /// How long it can be used to join: a number with s, m, h or d, such as 90s, 30m, 1h, 2d.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = parse_ttl)]
    ttl: Duration,
    /// A name to show to the others.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Free text, shown to the others.
    #[arg(long, default_value = "", hide_default_value = true)]
    metadata: String,
    /// A key-value pair, shown to the others. Can be given several times.
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, String)>,
    /// Whether it may publish tracks.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    can_publish: bool,
    /// Whether it may receive tracks.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    can_subscribe: bool,
    /// Whether it may send data.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    can_publish_data: bool,
    /// The sources that it may publish; all when not given.
    #[arg(
        long = "source",
        value_name = "SOURCE",
        value_delimiter = ',',
        value_parser = ["camera", "microphone", "screen_share", "screen_share_audio"]
    )]
    sources: Vec<String>,
    /// Let it change its own name, metadata and attributes.
    #[arg(long)]
    can_update_own_metadata: bool,
    /// Do not show it to the others.
    #[arg(long)]
    hidden: bool,
    /// How many bits per second it may publish, all its tracks together: a number, or one with k or M, such as 500k or 2M.
    #[arg(long, value_name = "BITRATE", value_parser = parse_bitrate)]
    max_publish_bitrate: Option<NonZeroU64>,
    /// How many tracks it may publish at a time.
    #[arg(long, value_name = "COUNT")]
    max_tracks: Option<NonZeroU32>,
    /// How many bits per second it may receive, all tracks together.
    #[arg(long, value_name = "BITRATE", value_parser = parse_bitrate)]
    max_receive_bitrate: Option<NonZeroU64>,
    /// The highest quality that it may receive of any track.
    #[arg(long, value_name = "QUALITY", value_parser = parse_quality)]
    max_receive_quality: Option<Quality>,
    /// Let it manage the room: see, change, mute and remove its participants, and set its metadata (`video.roomAdmin`).
    #[arg(long, visible_alias = "admin")]
    room_admin: bool,
    /// The API key to sign with.
    #[arg(long, requires = "secret")]
    key: Option<String>,
    /// The API key's secret, at least 16 bytes. Other users of this machine can read it in the process list: prefer SIGNALBOX_KEYS.
    #[arg(long, requires = "key")]
    secret: Option<String>,
    /// API keys as `key:secret,…`; the first one signs unless --key is given. Without either, the development key does.
    #[arg(long, env = "SIGNALBOX_KEYS", hide_env_values = true)]
    keys: Option<String>,
}

impl Token {
    /// Prints the token.
    pub fn run(self) -> anyhow::Result<()> {
        println!("{}", self.sign(SystemTime::now())?);
        Ok(())
    }

    fn sign(self, now: SystemTime) -> anyhow::Result<String> {
        let (key, secret) = match (self.key, self.secret, self.keys) {
            (Some(key), Some(secret), _) => (key, parse_secret("--secret", &secret)?),
            (_, _, Some(keys)) => first_key(&keys)?,
            _ => (DEV_KEY.to_owned(), DEV_SECRET.parse()?),
        };
        let allowed = |allowed: bool| (!allowed).then_some(false);
        let claims = AccessClaims {
            sub: self.identity.into(),
            name: self.name,
            metadata: self.metadata,
            attributes: self.attributes.into_iter().collect::<BTreeMap<_, _>>(),
            video: VideoGrant {
                room_join: true,
                room: self.room.into(),
                room_admin: self.room_admin,
                can_publish: allowed(self.can_publish),
                can_subscribe: allowed(self.can_subscribe),
                can_publish_data: allowed(self.can_publish_data),
                can_publish_sources: self.sources,
                can_update_own_metadata: self.can_update_own_metadata.then_some(true),
                hidden: self.hidden,
                ..VideoGrant::default()
            },
            limits: LimitsClaim {
                max_publish_bitrate: self.max_publish_bitrate,
                max_tracks: self.max_tracks,
                max_receive_bitrate: self.max_receive_bitrate,
                max_receive_quality: self.max_receive_quality,
            },
            ..AccessClaims::default()
        };
        sign(claims, &key, &secret, now, self.ttl)
    }
}

/// Signs claims for `ttl` from `now` on.
pub fn sign(
    mut claims: AccessClaims,
    key: &str,
    secret: &Secret,
    now: SystemTime,
    ttl: Duration,
) -> anyhow::Result<String> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970; set it")?;
    claims.iss = key.to_owned();
    claims.exp = now.saturating_add(ttl).as_secs();
    let secret = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &secret).context("the token cannot be signed")
}

fn first_key(keys: &str) -> anyhow::Result<(String, Secret)> {
    let wrong = || Usage("SIGNALBOX_KEYS must be key:secret pairs with commas between them".to_owned());
    let first = keys.split(',').next().map(str::trim).ok_or_else(wrong)?;
    let (key, secret) = first.split_once(':').ok_or_else(wrong)?;
    if key.is_empty() {
        return Err(wrong().into());
    }
    Ok((key.to_owned(), parse_secret("SIGNALBOX_KEYS", secret)?))
}

/// Not left to the command line's parser, which repeats what it refuses.
pub fn parse_secret(flag: &str, secret: &str) -> anyhow::Result<Secret> {
    secret.parse().map_err(|error| Usage(format!("{flag}: {error}")).into())
}

pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a whole number with s, m, h or d, such as 30m or 2d".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let seconds: u32 = number.parse().map_err(|_| wrong())?;
    if seconds == 0 {
        return Err("must be longer than nothing".to_owned());
    }
    Ok(Duration::from_secs(u64::from(seconds) * unit))
}

fn parse_bitrate(text: &str) -> Result<NonZeroU64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'M']) {
        Some(number) if text.ends_with('k') => (number, 1_000),
        Some(number) => (number, 1_000_000),
        None => (text, 1),
    };
    let bitrate = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bitrate
        .and_then(NonZeroU64::new)
        .ok_or_else(|| "must be bits per second above 0, such as 800000, 800k or 2M".to_owned())
}

fn parse_quality(text: &str) -> Result<Quality, String> {
    match text {
        "low" => Ok(Quality::Low),
        "medium" => Ok(Quality::Medium),
        "high" => Ok(Quality::High),
        _ => Err("must be low, medium or high".to_owned()),
    }
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: Token,
    }

    fn claims(args: &[&str], key_secret: &str) -> AccessClaims {
        let line = Line::try_parse_from([&["token"], args].concat()).unwrap();
        let token = line.token.sign(SystemTime::now()).unwrap();
        let key = DecodingKey::from_secret(key_secret.as_bytes());
        jsonwebtoken::decode::<AccessClaims>(&token, &key, &Validation::default())
            .unwrap()
            .claims
    }

    #[test]
    fn times_are_understood() {
        assert_eq!(parse_ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_ttl("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse_ttl("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_ttl("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "h", "1", "-1h", "1.5h", "0s", "1w", "9999999999s", "1ü"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_plain_token_allows_to_join_its_room() {
        let args = [
            "--room",
            "daily",
            "--identity",
            "ann",
            "--key",
            DEV_KEY,
            "--secret",
            DEV_SECRET,
        ];
        let claims = claims(&args, DEV_SECRET);
        assert_eq!((claims.iss.as_str(), claims.sub.as_str()), (DEV_KEY, "ann"));
        assert!(claims.video.room_join && !claims.video.room_admin && !claims.video.hidden);
        assert_eq!(claims.video.room, "daily");
        assert_eq!(claims.video.can_publish, None);
    }

    #[test]
    fn grants_are_taken_over() {
        let args = [
            "--room",
            "r",
            "--identity",
            "i",
            "--can-publish",
            "false",
            "--hidden",
            "--admin",
            "--name",
            "I",
        ];
        let keys = [
            "--attribute",
            "a=b",
            "--source",
            "camera,microphone",
            "--keys",
            "k:0123456789abcdef,other:x",
        ];
        let claims = claims(&[&args[..], &keys[..]].concat(), "0123456789abcdef");
        assert_eq!(claims.iss, "k");
        assert_eq!(claims.video.can_publish, Some(false));
        assert!(claims.video.hidden && claims.video.room_admin);
        assert_eq!(claims.name, "I");
        assert_eq!(claims.attributes.get("a").map(String::as_str), Some("b"));
        assert_eq!(claims.video.can_publish_sources, ["camera", "microphone"]);
    }

    #[test]
    fn the_right_to_manage_the_room_is_livekits_claim() {
        let args = ["token", "--room", "daily", "--identity", "ann"];
        for flag in ["--room-admin", "--admin"] {
            let line = Line::try_parse_from([&args[..], &[flag]].concat()).unwrap();
            let token = line.token.sign(SystemTime::now()).unwrap();
            let key = DecodingKey::from_secret(DEV_SECRET.as_bytes());
            let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &Validation::default()).unwrap();
            let video = &claims.claims["video"];
            assert_eq!(video["roomAdmin"], true, "{video}");
            assert_eq!((&video["roomJoin"], &video["room"]), (&true.into(), &"daily".into()));
        }
        let help = <Line as clap::CommandFactory>::command().render_long_help().to_string();
        assert!(
            help.contains("--room-admin") && help.contains("video.roomAdmin"),
            "{help}"
        );
    }

    #[test]
    fn limits_are_taken_over() {
        let args = ["--room", "r", "--identity", "i", "--keys", "k:0123456789abcdef"];
        let claim = claims(&args, "0123456789abcdef").limits;
        assert!(claim.is_empty());
        let limits = [
            "--max-publish-bitrate=2M",
            "--max-tracks=3",
            "--max-receive-bitrate=500k",
        ];
        let claim = claims(
            &[&args[..], &limits, &["--max-receive-quality=medium"]].concat(),
            "0123456789abcdef",
        )
        .limits;
        assert_eq!(claim.max_publish_bitrate.map(NonZeroU64::get), Some(2_000_000));
        assert_eq!(claim.max_tracks.map(NonZeroU32::get), Some(3));
        assert_eq!(claim.max_receive_bitrate.map(NonZeroU64::get), Some(500_000));
        assert_eq!(claim.max_receive_quality, Some(Quality::Medium));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let required = ["token", "--room", "r", "--identity", "i"];
        for wrong in [
            &["--ttl", "soon"][..],
            &["--key", "k"],
            &["--attribute", "novalue"],
            &["--source", "kitchen"],
            &["--room", ""],
            &["--max-tracks", "0"],
            &["--max-publish-bitrate", "0"],
            &["--max-publish-bitrate", "2G"],
            &["--max-receive-bitrate", "99999999999999999999M"],
            &["--max-receive-quality", "best"],
        ] {
            assert!(Line::try_parse_from([&required, wrong].concat()).is_err(), "{wrong:?}");
        }
        let error = parse_secret("--secret", "short").unwrap_err().to_string();
        assert!(error.contains("16 bytes") && !error.contains("short"), "{error}");
        for keys in ["", "k", ":0123456789abcdef", "k:short"] {
            assert!(first_key(keys).is_err(), "{keys:?}");
        }
    }
}
