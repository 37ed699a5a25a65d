// Package config turns flags, the environment and an environment file into one
// validated Config. It is the only place that knows the names of settings.
//
// A flag beats the real environment, that beats the environment file, and that
// beats the default. A name that is set to nothing counts as not set, and still
// beats what stands below it: OPENAI_API_KEY= in the environment switches off
// what the file says. (An empty WEIR_ADMIN_ADDR means off.)
package config

import (
	"errors"
	"io"
	"log/slog"
	"net/url"
	"time"
)

// Config is everything that can be set, valid as a whole. It prints without
// its secrets.
type Config struct {
	Addr         string // where clients are served, host:port; no host means all interfaces
	AdminAddr    string // metrics and profiles, host:port; empty is off
	AdminAddrSet bool   // the user named AdminAddr: failing to bind it is fatal then

	OpenAI       OpenAI
	DefaultModel string // of a request that names none; empty leaves it to the first provider

	Store       string // the kind of store: StoreDisk, StoreMemory, StoreRedis
	MemoryLimit int64  // bytes of streams in memory: all of them in the memory store, else running and recent ones
	DataDir     string // of the disk store; need not exist
	DiskSync    bool   // the disk store waits for the disk with each write
	DiskLimit   int64  // bytes that the files of the disk store take
	RedisURL    string // of the redis store: redis, rediss or unix; may hold a password
	RedisPrefix string // before each key of the redis store

	APIKeys []string // of the clients, without duplicates; none: anonymous
	RPM     int      // requests a minute for each client key; 0 is no limit

	DetachGrace time.Duration // how long an OpenAI-compatible stream goes on without a reader; may be 0
	OrphanLimit time.Duration // the same for a native stream
	Heartbeat   time.Duration // silence after which a reader gets a ping
	Retention   time.Duration // how long a stream is kept after its end
	DrainGrace  time.Duration // how long running generations may go on in a shutdown; may be 0
	DrainDelay  time.Duration // how long a shutdown goes on accepting; may be 0
	FirstTokenTimeout,
	IdleTimeout time.Duration // upstream silence before, and between, tokens

	ForwardAuth    bool     // a provider without a key gets the client's Authorization
	AllowAnonymous bool     // serve beyond loopback without client keys
	AllowedHosts   []string // further names of this server: lower case, no port
	CORSOrigins    []string // origins that browsers may call from, as browsers write them, or "null"
	Secret         string   // signs read tokens; empty: one is made

	Version  bool     // -version was given; nothing else was looked at then
	Warnings []string // for the log: what was accepted but is probably not meant
}

// OpenAI is the provider that speaks the OpenAI API.
type OpenAI struct {
	On      bool   // a key or a base URL is set
	Key     string // may be empty: a local server needs none
	BaseURL string // without a trailing slash; never empty
}

// The kinds of store.
const (
	StoreDisk   = "disk"   // files in a directory: streams outlive the process
	StoreMemory = "memory" // this process only
	StoreRedis  = "redis"  // a Redis, which replicas may share
)

// Load reads the settings from the arguments after the program's name, an
// environment in the form of os.Environ, and the files they point to; relative
// names are looked up in the working directory.
//
// The error joins everything that is wrong, one line each, and never holds a
// secret's value. It is flag.ErrHelp when the usage was asked for, which was
// then written to usage.
func Load(args, environ []string, usage io.Writer) (Config, error) {
	flags, err := parseFlags(args, usage)
	if err != nil {
		return Config{}, err
	}
	if flags.version {
		return Config{Version: true}, nil
	}

	var problems []error
	src, err := readSources(flags, environ)
	problems = append(problems, err)

	c := defaults()
	wrong := map[string]bool{}
	for _, v := range variables {
		if err := v.load(&c, src); err != nil {
			problems = append(problems, err)
			wrong[v.name] = true
		}
	}
	admin := src.lookup("WEIR_ADMIN_ADDR")
	c.AdminAddrSet = admin.found && admin.text != ""
	c.OpenAI.On = src.given("OPENAI_API_KEY") || src.given("OPENAI_BASE_URL")

	problems = append(problems, checkNotBuilt(&c, src))
	problems = append(problems, chooseStore(&c, src, wrong))
	problems = append(problems, checkTogether(&c, src, wrong)...)
	c.Warnings = append(c.Warnings, unknownNames(src)...)
	if err := errors.Join(problems...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Loopback reports whether clients are served on this machine only. A name
// other than localhost may resolve to anything, so it does not count.
func (c Config) Loopback() bool { return isLoopback(c.Addr) }

// LogValue is the configuration without its secrets.
func (c Config) LogValue() slog.Value {
	if c.Version {
		return slog.GroupValue(slog.Bool("version", true))
	}
	return slog.GroupValue(
		slog.String("addr", c.Addr),
		slog.String("admin_addr", c.AdminAddr),
		slog.Any("openai", c.OpenAI),
		slog.String("default_model", c.DefaultModel),
		slog.String("store", c.Store),
		slog.Int64("memory_limit", c.MemoryLimit),
		slog.String("data_dir", c.DataDir),
		slog.Bool("disk_sync", c.DiskSync),
		slog.Int64("disk_limit", c.DiskLimit),
		slog.String("redis_url", bare(c.RedisURL)),
		slog.String("redis_prefix", c.RedisPrefix),
		slog.Int("api_keys", len(c.APIKeys)),
		slog.Int("rpm", c.RPM),
		slog.Duration("detach_grace", c.DetachGrace),
		slog.Duration("orphan_limit", c.OrphanLimit),
		slog.Duration("heartbeat", c.Heartbeat),
		slog.Duration("retention", c.Retention),
		slog.Duration("drain_grace", c.DrainGrace),
		slog.Duration("drain_delay", c.DrainDelay),
		slog.Duration("first_token_timeout", c.FirstTokenTimeout),
		slog.Duration("idle_timeout", c.IdleTimeout),
		slog.Bool("forward_auth", c.ForwardAuth),
		slog.Bool("allow_anonymous", c.AllowAnonymous),
		slog.Any("allowed_hosts", c.AllowedHosts),
		slog.Any("cors_origins", c.CORSOrigins),
		slog.Bool("secret_set", c.Secret != ""),
	)
}

// String is the configuration without its secrets.
func (c Config) String() string { return c.LogValue().String() }

// GoString keeps %#v from printing the secrets.
func (c Config) GoString() string { return c.String() }

// LogValue is the provider's settings without its credentials.
func (o OpenAI) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Bool("on", o.On),
		slog.Bool("key_set", o.Key != ""),
		slog.String("base_url", bare(o.BaseURL)),
	)
}

// String is the provider's settings without its credentials.
func (o OpenAI) String() string { return o.LogValue().String() }

// GoString keeps %#v from printing the credentials.
func (o OpenAI) GoString() string { return o.String() }

// bare is a URL without its user name and password, and without its query,
// where some clients take a password, too.
func bare(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}
