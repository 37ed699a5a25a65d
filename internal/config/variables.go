package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// variable is one setting: how it is read, and what an error says about it.
type variable struct {
	name    string
	def     string // the default, as a user would write it; empty for none
	takes   string // what it takes, after "takes"
	example string
	secret  bool // its value is never shown
	empty   bool // set to nothing is a value of its own, not an absent one

	// set reads a value. Its error says what is wrong, without the value.
	set func(c *Config, text string) error
}

// variables are all settings of this version.
var variables = []variable{
	{
		name: "WEIR_ADDR", def: "127.0.0.1:8080", takes: "host:port", example: "127.0.0.1:8080",
		set: into(parseAddr, func(c *Config) *string { return &c.Addr }),
	},
	{
		name: "WEIR_ADMIN_ADDR", def: "127.0.0.1:9091", takes: "host:port, or nothing to switch it off",
		example: "127.0.0.1:9091", empty: true,
		set: into(parseAdminAddr, func(c *Config) *string { return &c.AdminAddr }),
	},
	{
		name: "OPENAI_API_KEY", takes: "the API key as the provider gave it", example: "sk-…", secret: true,
		set: into(parseToken(1), func(c *Config) *string { return &c.OpenAI.Key }),
	},
	{
		name: "OPENAI_BASE_URL", def: "https://api.openai.com/v1", takes: "an http or https URL without query",
		example: "http://localhost:11434/v1",
		set:     into(parseBaseURL, func(c *Config) *string { return &c.OpenAI.BaseURL }),
	},
	{
		name: "WEIR_DEFAULT_MODEL", takes: "a model name without spaces", example: "gpt-5-mini",
		set: into(parseName, func(c *Config) *string { return &c.DefaultModel }),
	},
	{
		name: "WEIR_STORE", def: StoreDisk, takes: "disk, memory or redis", example: StoreDisk,
		set: into(parseStore, func(c *Config) *string { return &c.Store }),
	},
	size("WEIR_MEMORY_LIMIT", "512MiB", 1, func(c *Config) *int64 { return &c.MemoryLimit }),
	{
		name: "WEIR_DATA_DIR", def: "./data", takes: "the path of a directory", example: "./data",
		set: into(parseDir, func(c *Config) *string { return &c.DataDir }),
	},
	{
		name: "WEIR_DISK_SYNC", def: "os", takes: "os or fsync", example: "fsync",
		set: into(parseDiskSync, func(c *Config) *bool { return &c.DiskSync }),
	},
	size("WEIR_DISK_LIMIT", "10GiB", 16, func(c *Config) *int64 { return &c.DiskLimit }),
	{
		name: "WEIR_REDIS_URL", takes: "redis://[user:password@]host[:port][/database], the same with rediss for TLS, or unix:///path",
		example: "redis://localhost:6379", secret: true,
		set: into(parseRedisURL, func(c *Config) *string { return &c.RedisURL }),
	},
	{
		name: "WEIR_REDIS_PREFIX", def: "{weir}:", takes: "up to 256 printable ASCII characters without spaces", example: "{weir}:",
		set: into(parseName, func(c *Config) *string { return &c.RedisPrefix }),
	},
	{
		name: "WEIR_API_KEYS", takes: "different keys, comma separated, each of at least 8 printable ASCII characters without spaces",
		example: "first-key,second-key", secret: true,
		set: into(parseKeys, func(c *Config) *[]string { return &c.APIKeys }),
	},
	{
		name: "WEIR_RPM", takes: "a whole number of requests a minute (0 for no limit)", example: "60",
		set: into(parseCount, func(c *Config) *int { return &c.RPM }),
	},
	duration("WEIR_DETACH_GRACE", "5s", 0, func(c *Config) *time.Duration { return &c.DetachGrace }),
	duration("WEIR_ORPHAN_LIMIT", "10m", 1, func(c *Config) *time.Duration { return &c.OrphanLimit }),
	duration("WEIR_HEARTBEAT", "15s", time.Second, func(c *Config) *time.Duration { return &c.Heartbeat }),
	duration("WEIR_RETENTION", "24h", 1, func(c *Config) *time.Duration { return &c.Retention }),
	duration("WEIR_DRAIN_GRACE", "30s", 0, func(c *Config) *time.Duration { return &c.DrainGrace }),
	duration("WEIR_DRAIN_DELAY", "0s", 0, func(c *Config) *time.Duration { return &c.DrainDelay }),
	duration("WEIR_FIRST_TOKEN_TIMEOUT", "120s", 1, func(c *Config) *time.Duration { return &c.FirstTokenTimeout }),
	duration("WEIR_IDLE_TIMEOUT", "60s", 1, func(c *Config) *time.Duration { return &c.IdleTimeout }),
	boolean("WEIR_FORWARD_AUTH", func(c *Config) *bool { return &c.ForwardAuth }),
	boolean("WEIR_ALLOW_ANONYMOUS", func(c *Config) *bool { return &c.AllowAnonymous }),
	{
		name: "WEIR_ALLOWED_HOSTS", takes: "host names without port, comma separated", example: "host.docker.internal",
		set: into(parseHosts, func(c *Config) *[]string { return &c.AllowedHosts }),
	},
	{
		name: "WEIR_CORS_ORIGINS", takes: "origins, comma separated: scheme://host[:port], or null", example: "https://chat.example.com",
		set: into(parseOrigins, func(c *Config) *[]string { return &c.CORSOrigins }),
	},
	{
		name: "WEIR_SECRET", takes: "at least 16 printable ASCII characters without spaces", example: "…, as openssl rand -hex 32 makes one", secret: true,
		set: into(parseToken(16), func(c *Config) *string { return &c.Secret }),
	},
}

// into is a set function that parses a value into a field.
func into[T any](parse func(string) (T, error), field func(*Config) *T) func(*Config, string) error {
	return func(c *Config, text string) error {
		v, err := parse(text)
		if err != nil {
			return err
		}
		*field(c) = v
		return nil
	}
}

// duration is a setting of at least min; a min of 1 means more than zero.
func duration(name, def string, min time.Duration, field func(*Config) *time.Duration) variable {
	takes := "a duration of at least " + min.String()
	if min == 1 {
		takes = "a duration of more than 0s"
	}
	return variable{name: name, def: def, takes: takes, example: def, set: into(parseDuration(min), field)}
}

// size is a setting of at least so many MiB.
func size(name, def string, mebibytes int64, field func(*Config) *int64) variable {
	return variable{
		name: name, def: def, example: def,
		takes: fmt.Sprintf("a size of at least %dMiB, in KiB, MiB, GiB or bytes", mebibytes),
		set:   into(parseSize(mebibytes), field),
	}
}

// boolean is a setting that is off by default.
func boolean(name string, field func(*Config) *bool) variable {
	return variable{
		name: name, def: "false", takes: "true or false", example: "true",
		set: into(parseBool, field),
	}
}

func defaults() Config {
	var c Config
	for _, v := range variables {
		if v.def == "" {
			continue
		}
		if err := v.set(&c, v.def); err != nil {
			panic(fmt.Sprintf("config: the default of %s: %v", v.name, err)) // a test loads them all
		}
	}
	return c
}

// load sets the field from the source that wins, or leaves its default.
func (v variable) load(c *Config, src sources) error {
	val := src.lookup(v.name)
	flag := val.label != v.name
	if !val.found || (val.text == "" && !v.empty && !flag) {
		return nil
	}
	err := v.set(c, val.text)
	if strings.HasPrefix(val.text, "#") && val.file {
		// godotenv takes the comment after an empty value for the value. It
		// would make a fine secret that everybody knows.
		err = errors.New("it looks like a comment; put comments on lines of their own")
	}
	if err == nil {
		return nil
	}
	shown := quote(val.text)
	if v.secret || hidesSecret(val.text) {
		shown = fmt.Sprintf("a value of %d characters", utf8.RuneCountInString(val.text))
	}
	return fmt.Errorf("%s: got %s%s: %w; takes %s, for example %s=%s",
		val.label, shown, val.from, err, v.takes, val.label, v.example)
}

// hidesSecret reports whether a value that is no secret by its name may still
// carry one: in a URL's user part or query, or a key given in the wrong place.
func hidesSecret(text string) bool {
	return strings.ContainsAny(text, "@?") || strings.HasPrefix(text, "sk-")
}

// quote shows a value in a message, its control characters escaped and its
// length bounded.
func quote(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}
