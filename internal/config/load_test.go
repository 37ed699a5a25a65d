package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// load loads from an empty working directory with the given .env, if any.
func load(t *testing.T, env string, environ []string, args ...string) (Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if env != "" {
		write(t, ".env", env)
	}
	return Load(args, environ, io.Discard)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantDefaults() Config {
	return Config{
		Addr:              "127.0.0.1:8080",
		AdminAddr:         "127.0.0.1:9091",
		OpenAI:            OpenAI{BaseURL: "https://api.openai.com/v1"},
		Store:             "disk",
		MemoryLimit:       512 << 20,
		DataDir:           "./data",
		DiskLimit:         10 << 30,
		RedisPrefix:       "{weir}:",
		DetachGrace:       5 * time.Second,
		OrphanLimit:       10 * time.Minute,
		Heartbeat:         15 * time.Second,
		Retention:         24 * time.Hour,
		DrainGrace:        30 * time.Second,
		FirstTokenTimeout: 120 * time.Second,
		IdleTimeout:       60 * time.Second,
	}
}

func TestDefaults(t *testing.T) {
	got, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := wantDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("defaults\n got %v\nwant %v", got, want)
	}
}

func TestEverySetting(t *testing.T) {
	got, err := load(t, "", []string{
		"WEIR_ADDR=:9000",
		"WEIR_ADMIN_ADDR=",
		"OPENAI_API_KEY=sk-0123456789",
		"OPENAI_BASE_URL=https://llm.example.com/v1/",
		"WEIR_DEFAULT_MODEL=openai/gpt-5",
		"WEIR_STORE=redis",
		"WEIR_MEMORY_LIMIT=2GiB",
		"WEIR_DATA_DIR=/var/lib/weir logs",
		"WEIR_DISK_SYNC=fsync",
		"WEIR_DISK_LIMIT=16MiB",
		"WEIR_REDIS_URL=rediss://weir:p%40ss@[::1]:6380/2?write_timeout=1s",
		"WEIR_REDIS_PREFIX=weir/{a}:",
		"WEIR_API_KEYS= alpha-key , beta-key ",
		"WEIR_RPM=60",
		"WEIR_DETACH_GRACE=0s",
		"WEIR_ORPHAN_LIMIT=1h",
		"WEIR_HEARTBEAT=1s",
		"WEIR_RETENTION=1h30m",
		"WEIR_DRAIN_GRACE=0",
		"WEIR_DRAIN_DELAY=5s",
		"WEIR_FIRST_TOKEN_TIMEOUT=500ms",
		"WEIR_IDLE_TIMEOUT=1ms",
		"WEIR_FORWARD_AUTH=FALSE",
		"WEIR_ALLOW_ANONYMOUS=0",
		"WEIR_ALLOWED_HOSTS=Host.Docker.Internal, [0:0::1], host.docker.internal.",
		"WEIR_CORS_ORIGINS=https://A.example.com:443/,null,http://localhost:3000",
		"WEIR_SECRET=0123456789abcdef",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Addr:   ":9000",
		OpenAI: OpenAI{On: true, Key: "sk-0123456789", BaseURL: "https://llm.example.com/v1"},

		DefaultModel: "openai/gpt-5",

		Store: "redis", MemoryLimit: 2 << 30, DataDir: "/var/lib/weir logs", DiskSync: true, DiskLimit: 16 << 20,
		RedisURL: "rediss://weir:p%40ss@[::1]:6380/2?write_timeout=1s", RedisPrefix: "weir/{a}:",

		APIKeys: []string{"alpha-key", "beta-key"}, RPM: 60,

		OrphanLimit: time.Hour, Heartbeat: time.Second, Retention: 90 * time.Minute, DrainDelay: 5 * time.Second,
		FirstTokenTimeout: 500 * time.Millisecond, IdleTimeout: time.Millisecond,

		AllowedHosts: []string{"host.docker.internal", "::1"},
		CORSOrigins:  []string{"https://a.example.com", "null", "http://localhost:3000"},
		Secret:       "0123456789abcdef",
		Warnings: []string{
			"WEIR_DATA_DIR, WEIR_DISK_SYNC, WEIR_DISK_LIMIT has no effect while the store is redis",
			"WEIR_CORS_ORIGINS has null: every sandboxed frame and local file is that origin",
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v\nwarnings %q", got, want, got.Warnings)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "WEIR_ADDR=127.0.0.1:1\nOPENAI_API_KEY=from-file\n"
	tests := []struct {
		name, env string
		environ   []string
		args      []string
		addr, key string
	}{
		{"default", "", nil, nil, "127.0.0.1:8080", ""},
		{"file", file, nil, nil, "127.0.0.1:1", "from-file"},
		{"environment over file", file, []string{"WEIR_ADDR=127.0.0.1:2"}, nil, "127.0.0.1:2", "from-file"},
		{"empty environment over file", file, []string{"WEIR_ADDR=", "OPENAI_API_KEY="}, nil, "127.0.0.1:8080", ""},
		{"flag over all", file, []string{"WEIR_ADDR=127.0.0.1:2"}, []string{"-addr", "127.0.0.1:3"}, "127.0.0.1:3", "from-file"},
		{"flag hides a wrong value", "WEIR_ADDR=nonsense", nil, []string{"-addr=127.0.0.1:3"}, "127.0.0.1:3", ""},
		{"first of two in the environment", "", []string{"WEIR_ADDR=127.0.0.1:4", "WEIR_ADDR=127.0.0.1:5"}, nil, "127.0.0.1:4", ""},
		{"space around", "", []string{"OPENAI_API_KEY= key\n"}, nil, "127.0.0.1:8080", "key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.env, tt.environ, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if c.Addr != tt.addr || c.OpenAI.Key != tt.key || c.OpenAI.On != (tt.key != "") {
				t.Errorf("got addr %q, key %q, on %v; want %q, %q", c.Addr, c.OpenAI.Key, c.OpenAI.On, tt.addr, tt.key)
			}
		})
	}
}

func TestOpenAIOnByBaseURLAlone(t *testing.T) {
	c, err := load(t, "OPENAI_BASE_URL=http://localhost:11434/v1", nil)
	if err != nil || !c.OpenAI.On || c.OpenAI.BaseURL != "http://localhost:11434/v1" {
		t.Errorf("got %v, %v", c.OpenAI, err)
	}
}

func TestStore(t *testing.T) {
	const url = "WEIR_REDIS_URL=redis://localhost"
	tests := []struct {
		name, env string
		environ   []string
		store     string
		refused   string // what the error says; empty for none
	}{
		{"said", "", []string{"WEIR_STORE=memory"}, "memory", ""},
		{"a Redis is named", url, nil, "redis", ""},
		{"… and said", url, []string{"WEIR_STORE=redis"}, "redis", ""},
		{"… and unsaid", url, []string{"WEIR_REDIS_URL="}, "disk", ""},
		{"… and nothing said", url, []string{"WEIR_STORE="}, "redis", ""},
		{"a Redis and a disk", url, []string{"WEIR_STORE=disk"}, "", "WEIR_REDIS_URL: is set from .env, which means the redis store, but WEIR_STORE is disk; unset one of them"},
		{"a Redis and memory", "WEIR_STORE=memory", []string{url}, "", "WEIR_REDIS_URL: is set, which means the redis store, but WEIR_STORE is memory from .env; unset one"},
		{"no Redis", "", []string{"WEIR_STORE=redis"}, "", "set WEIR_REDIS_URL, for example WEIR_REDIS_URL=redis://localhost:6379"},
		{"a wrong Redis is one", "", []string{"WEIR_STORE=redis", "WEIR_REDIS_URL=localhost"}, "", "WEIR_REDIS_URL: got"},
		{"a wrong store is none", url, []string{"WEIR_STORE=Disk"}, "", "WEIR_STORE: got"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.env, tt.environ)
			switch {
			case tt.refused == "" && (err != nil || c.Store != tt.store):
				t.Errorf("got %q, %v; want %s", c.Store, err, tt.store)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want %q alone", err, tt.refused)
			}
		})
	}
}

func TestAdminAddrSet(t *testing.T) {
	tests := []struct {
		environ []string
		addr    string
		set     bool
	}{
		{nil, "127.0.0.1:9091", false},
		{[]string{"WEIR_ADMIN_ADDR="}, "", false},
		{[]string{"WEIR_ADMIN_ADDR=127.0.0.1:9091"}, "127.0.0.1:9091", true},
		{[]string{"WEIR_ADMIN_ADDR=[::1]:0"}, "[::1]:0", true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.environ), func(t *testing.T) {
			c, err := load(t, "", tt.environ)
			if err != nil || c.AdminAddr != tt.addr || c.AdminAddrSet != tt.set {
				t.Errorf("got %q, set %v, %v; want %q, %v", c.AdminAddr, c.AdminAddrSet, err, tt.addr, tt.set)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	t.Run("version looks at nothing else", func(t *testing.T) {
		c, err := load(t, "broken", []string{"WEIR_ADDR=nonsense"}, "-version")
		if err != nil || !c.Version {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("help", func(t *testing.T) {
		var usage strings.Builder
		if _, err := Load([]string{"-h"}, nil, &usage); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("got %v, want flag.ErrHelp", err)
		}
		for _, want := range []string{"-addr", "-env", "-config", "-version", "WEIR_HEARTBEAT", "default 15s", "WEIR_API_KEYS"} {
			if !strings.Contains(usage.String(), want) {
				t.Errorf("the usage lacks %s:\n%s", want, usage.String())
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		for arg, want := range map[string]string{
			"-nonsense":         "not defined: -nonsense; -h lists the flags",
			"serve":             `unexpected argument "serve"`,
			"-addr=":            `-addr: got "": it is not host:port`,
			"-env=":             "-env: got an empty name",
			"-env=missing.env":  "missing.env",
			"-config=other.yml": `-config: got "other.yml", but YAML files are not built in this version`,
		} {
			if _, err := load(t, "", nil, arg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", arg, err, want)
			}
		}
	})
}

func TestEnvFile(t *testing.T) {
	t.Run("named", func(t *testing.T) {
		t.Chdir(t.TempDir())
		write(t, ".env", "WEIR_RPM=1")
		write(t, "other.env", "WEIR_RPM=2")
		c, err := Load([]string{"-env", "other.env"}, nil, io.Discard)
		if err != nil || c.RPM != 2 {
			t.Errorf("got %d, %v", c.RPM, err)
		}
	})
	t.Run("the process environment is left alone", func(t *testing.T) {
		if _, err := load(t, "WEIR_TEST_LEAK=1", nil); err != nil {
			t.Fatal(err)
		}
		if _, leaked := os.LookupEnv("WEIR_TEST_LEAK"); leaked {
			t.Error("a name of the file is in the process's environment")
		}
	})
	t.Run("forms", func(t *testing.T) {
		c, err := load(t, "\xef\xbb\xbf# comment\r\nexport WEIR_RPM=7 # seven\r\n\r\nWEIR_SECRET='pa$$HOME#0123456789'\r\n"+
			"OPENAI_API_KEY=\"sk-12345\"\r\nWEIR_DEFAULT_MODEL=", nil)
		if err != nil || c.RPM != 7 || c.Secret != "pa$$HOME#0123456789" || c.OpenAI.Key != "sk-12345" || c.DefaultModel != "" {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("braces and colons", func(t *testing.T) {
		for _, value := range []string{"{weir}:", "'{weir}:'", "\"{weir}:\"", "{weir}: # comment"} {
			c, err := load(t, "WEIR_REDIS_PREFIX="+value+"\nWEIR_REDIS_URL=redis://:p%40ss@[::1]:6379/1?a=b\n", nil)
			if err != nil || c.RedisPrefix != "{weir}:" || c.RedisURL != "redis://:p%40ss@[::1]:6379/1?a=b" {
				t.Errorf("%s: got %q, %q, %v", value, c.RedisPrefix, c.RedisURL, err)
			}
		}
	})
	t.Run("weir.yaml present", func(t *testing.T) {
		t.Chdir(t.TempDir())
		write(t, "weir.yaml", "")
		if _, err := Load(nil, nil, io.Discard); err == nil || !strings.Contains(err.Error(), "weir.yaml is present") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		if _, err := load(t, strings.Repeat("#", maxEnvFile+1), nil); err == nil || !strings.Contains(err.Error(), "64 KiB") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a directory", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if err := os.Mkdir(".env", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(nil, nil, io.Discard); err == nil || !strings.Contains(err.Error(), "can't be read") {
			t.Errorf("got %v", err)
		}
	})
}

// A file that can't be parsed is named by line; godotenv would quote its rest.
func TestEnvFileErrorsNameTheLine(t *testing.T) {
	const secret = "sk-very-secret"
	tests := []struct {
		name, env string
		line      int
	}{
		{"bare word", "WEIR_RPM=1\n" + secret + "\nA=" + secret, 2},
		{"bare word of letters at the end", "WEIR_RPM=1\n\nOPENAI_API_KEY", 3},
		{"open quote", "# one\n\nOPENAI_API_KEY=\"" + secret + "\nWEIR_RPM=1\n", 3},
		{"after a value of two lines", "A='x\ny'\n\n\n" + secret + "\n", 5},
		{"first line", secret, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.env, nil)
			if err == nil {
				t.Fatal("no error")
			}
			if want := fmt.Sprintf(".env: line %d is not NAME=value", tt.line); !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if strings.Contains(err.Error(), "secret\n") || strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	c, err := load(t, "", []string{
		"OPENAI_API_KEY=hidden-upstream",
		"OPENAI_BASE_URL=http://user:hidden-password@localhost:1/v1",
		"WEIR_API_KEYS=hidden-key-1,hidden-key-2",
		"WEIR_SECRET=hidden-signing-secret",
		"WEIR_REDIS_URL=redis://hidden-user:hidden-password@localhost:2/3?password=hidden",
	})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "config", c, "openai", c.OpenAI)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "config", c, "openai", c.OpenAI)
	fmt.Fprintf(&log, "%v %+v %#v %s\n", c, c, c, c)
	fmt.Fprintf(&log, "%v %+v %#v %s\n", c.OpenAI, c.OpenAI, c.OpenAI, c.OpenAI)
	fmt.Fprintf(&log, "%v %#v\n", &c, &c)
	if strings.Contains(log.String(), "hidden") {
		t.Errorf("a secret shows:\n%s", log.String())
	}
	for _, want := range []string{"config.api_keys=2", "config.openai.key_set=true", "http://localhost:1/v1", "redis://localhost:2/3", "secret_set=true"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is missing:\n%s", want, log.String())
		}
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.9.9.9:1": true, "localhost:0": true, "LocalHost:80": true, "[::1]:80": true,
		"[::ffff:127.0.0.1]:80": true,
		":8080":                 false, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false,
		"example.com:80": false, "localhost.example.com:80": false, "": false,
	} {
		if got := (Config{Addr: addr}).Loopback(); got != want {
			t.Errorf("%q: got %v, want %v", addr, got, want)
		}
	}
}
