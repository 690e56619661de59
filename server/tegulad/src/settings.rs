//! The sections that say how the API is served, and how much of what there may be.

use std::time::Duration;

use tegula_api::{Cors, HealthFiles, MetricsAccess, Settings, StoreEntry};
use tegula_domain::quota::Limits;

use crate::config::{AccessTo, Config, ConfigError};

/// hyper takes no shorter buffer for the head of a request.
const HEAD_BYTES_MIN: u32 = 8192;

/// How the API is served.
///
/// # Errors
/// [`ConfigError::Value`] for numbers that make no sense, or not together.
pub(crate) fn settings(config: &Config) -> Result<Settings, ConfigError> {
    check(config)?;
    let limits = &config.limits;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Ok(Settings {
        public_endpoint: config.listen.public_endpoint.clone(),
        trust_forwarded: config.listen.trust_forwarded,
        page_default: limits.page_default,
        page_max: limits.page_max,
        disk_formats: config.formats.disk.clone(),
        container_formats: config.formats.container.clone(),
        store: StoreEntry {
            id: config.store.id.clone(),
            description: config.store.description.clone(),
        },
        cors: Cors {
            allowed_origins: config.cors.allowed_origins.clone(),
            allow_credentials: config.cors.allow_credentials,
            max_age_s: config.cors.max_age_s,
        },
        health: HealthFiles {
            disable: config.health.disable_file.clone(),
            enable: config.health.enable_file.clone(),
        },
        metrics: match config.metrics.access {
            AccessTo::Nobody => MetricsAccess::Nobody,
            AccessTo::Loopback => MetricsAccess::Loopback,
            AccessTo::Everybody => MetricsAccess::Everybody,
        },
        request_id_bytes_max: limits.request_id_bytes_max as usize,
        json_bytes_max: limits.json_bytes_max as usize,
        head_bytes_max: limits.head_bytes_max as usize,
        headers_max: limits.headers_max as usize,
        connections_max: limits.connections_max as usize,
        transfers_max: limits.transfers_max.into(),
        head_timeout: seconds(limits.head_timeout_s),
        json_timeout: seconds(limits.json_timeout_s),
        stall_timeout: seconds(limits.stall_timeout_s),
        drain_timeout: seconds(limits.drain_timeout_s),
    })
}

/// How much of what there may be.
pub(crate) fn limits(config: &Config) -> Limits {
    let quotas = &config.quotas;
    Limits {
        properties: Some(quotas.properties_max.into()),
        tags: Some(quotas.tags_max.into()),
        members: Some(quotas.members_max.into()),
        locations: Some(quotas.locations_max.into()),
        image_bytes: quotas.image_bytes_max,
        project_bytes: quotas.project_bytes_max,
    }
}

fn check(config: &Config) -> Result<(), ConfigError> {
    let limits = &config.limits;
    for (key, found, least) in [
        ("limits.connections_max", limits.connections_max, 1),
        ("limits.workers_max", limits.workers_max.into(), 1),
        ("limits.transfers_max", limits.transfers_max.into(), 1),
        ("limits.page_max", limits.page_max, 1),
        ("limits.json_bytes_max", limits.json_bytes_max, 1024),
        (
            "limits.head_bytes_max",
            limits.head_bytes_max,
            HEAD_BYTES_MIN,
        ),
        ("limits.headers_max", limits.headers_max, 20),
        (
            "limits.request_id_bytes_max",
            limits.request_id_bytes_max,
            40,
        ),
        ("limits.head_timeout_s", limits.head_timeout_s, 1),
        ("limits.json_timeout_s", limits.json_timeout_s, 1),
        ("limits.stall_timeout_s", limits.stall_timeout_s, 1),
    ] {
        if found < least {
            return Err(ConfigError::value(
                key,
                format!("expected at least {least}, found {found}"),
            ));
        }
    }
    if limits.transfers_max >= limits.workers_max {
        let text = format!(
            "expected fewer than `limits.workers_max`, {}, since other calls need threads too; found {}",
            limits.workers_max, limits.transfers_max
        );
        return Err(ConfigError::value("limits.transfers_max", text));
    }
    if limits.page_default > limits.page_max {
        let text = format!(
            "expected at most `limits.page_max`, {}, found {}",
            limits.page_max, limits.page_default
        );
        return Err(ConfigError::value("limits.page_default", text));
    }
    let open_to_all = config
        .cors
        .allowed_origins
        .iter()
        .any(|origin| origin == "*");
    if config.cors.allow_credentials && open_to_all {
        return Err(ConfigError::value(
            "cors.allow_credentials",
            "no browser takes it together with the origin \"*\"",
        ));
    }
    if let Some(url) = &config.listen.public_endpoint {
        let has_host = ["http://", "https://"].iter().any(|scheme| {
            url.strip_prefix(scheme).is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
            })
        });
        if !has_host {
            let text = format!("`{url}` is not of the form `https://HOST[:PORT]`");
            return Err(ConfigError::value("listen.public_endpoint", text));
        }
    }
    for (key, list) in [
        ("formats.disk", &config.formats.disk),
        ("formats.container", &config.formats.container),
    ] {
        if list.is_empty() {
            return Err(ConfigError::value(
                key,
                "there is none, so no image could have one",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_api() {
        let (ours, theirs) = (settings(&Config::default()).unwrap(), Settings::default());
        // The page of a preflight is remembered longer than the API's own default, which is not at all.
        let theirs = Settings {
            cors: ours.cors.clone(),
            ..theirs
        };
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(limits(&Config::default()), Limits::default());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused_by_name() {
        for (text, key) in [
            ("[limits]\npage_default = 2000", "limits.page_default"),
            (
                "[limits]\npage_max = 0\npage_default = 0",
                "limits.page_max",
            ),
            ("[limits]\nhead_bytes_max = 100", "limits.head_bytes_max"),
            ("[limits]\nworkers_max = 0", "limits.workers_max"),
            ("[limits]\nworkers_max = 256", "limits.transfers_max"),
            ("[limits]\nstall_timeout_s = 0", "limits.stall_timeout_s"),
            (
                "[cors]\nallowed_origins = [\"*\"]\nallow_credentials = true",
                "cors.allow_credentials",
            ),
            (
                "[listen]\npublic_endpoint = \"images.example.org\"",
                "listen.public_endpoint",
            ),
            (
                "[listen]\npublic_endpoint = \"https://\"",
                "listen.public_endpoint",
            ),
            ("[formats]\ndisk = []", "formats.disk"),
        ] {
            let error = settings(&toml::from_str(text).unwrap())
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
