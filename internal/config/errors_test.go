package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// wrongValues are settings, and what the error about each must say.
var wrongValues = []struct{ setting, want string }{
	{"WEIR_ADDR=8080", `WEIR_ADDR: got "8080": it is not host:port`},
	{"WEIR_ADDR=::1:80", "brackets"},
	{"WEIR_ADDR=127.0.0.1:http", "port is not a number"},
	{"WEIR_ADDR=127.0.0.1:", "port is not a number"},
	{"WEIR_ADDR=127.0.0.1:65536", "over 65535"},
	{"WEIR_ADDR=127.0.0.1:+1", "port is not a number"},
	{"WEIR_ADDR=127.0.0.256:80", "no IP address and no host name"},
	{"WEIR_ADDR=a b:80", "no IP address and no host name"},
	{"WEIR_ADDR=http://localhost:80", "it is not host:port"},
	{"WEIR_ADMIN_ADDR=off", "nothing to switch it off"},
	{"WEIR_ADMIN_ADDR=127.0.0.1:8080", "is the address of the clients already"},
	{"OPENAI_BASE_URL=localhost:11434/v1", "scheme is not http or https"},
	{"OPENAI_BASE_URL=ftp://localhost", "scheme is not http or https"},
	{"OPENAI_BASE_URL=https://", "no host"},
	{"OPENAI_BASE_URL=https://a/v1?key=secret", "query"},
	{"OPENAI_BASE_URL=https://a/v1#x", "query or a fragment"},
	{"OPENAI_BASE_URL=https://a:70000/v1", "65535"},
	{"OPENAI_BASE_URL=https://a:b/v1", "not a URL"},
	{"WEIR_DEFAULT_MODEL=gpt 5", "has a space"},
	{"WEIR_DEFAULT_MODEL=" + strings.Repeat("m", 257), "over 256"},
	{"WEIR_STORE=Memory", "no such store; takes disk, memory or redis"},
	{"WEIR_STORE=redis", "WEIR_STORE: is redis, but nothing says where that is; set WEIR_REDIS_URL"},
	{"WEIR_DATA_DIR=~/data", "only a shell knows what ~ is; takes the path of a directory"},
	{"WEIR_DISK_SYNC=true", "neither of the two; takes os or fsync"},
	{"WEIR_DISK_LIMIT=15MiB", "less than 16MiB; takes a size of at least 16MiB"},
	{"WEIR_DISK_LIMIT=10GB", "not a whole number of KiB"},
	{"WEIR_REDIS_URL=localhost:6379", "scheme is not redis, rediss or unix"},
	{"WEIR_REDIS_URL=http://localhost:6379", "scheme is not redis, rediss or unix"},
	{"WEIR_REDIS_URL=redis://:6379", "no host"},
	{"WEIR_REDIS_URL=redis:localhost", "no host"},
	{"WEIR_REDIS_URL=redis://a,b", "no host name"},
	{"WEIR_REDIS_URL=redis://h:70000", "65535"},
	{"WEIR_REDIS_URL=redis://h/", "not the number of a database"},
	{"WEIR_REDIS_URL=redis://h/-1", "not the number of a database"},
	{"WEIR_REDIS_URL=redis://h/1/2", "not the number of a database"},
	{"WEIR_REDIS_URL=redis://h/0#x", "fragment"},
	{"WEIR_REDIS_URL=unix://tmp/redis.sock", "no absolute path"},
	{"WEIR_REDIS_URL=unix:redis.sock", "no absolute path"},
	{"WEIR_REDIS_PREFIX=weir :", "has a space"},
	{"WEIR_REDIS_PREFIX=wéir:", "not printable ASCII"},
	{"WEIR_TPM=1000", "WEIR_TPM is set: this version does not have token limits; a limit that nobody keeps is dangerous; unset it"},
	{"WEIR_MAX_STREAMS=0", "WEIR_MAX_STREAMS is set"},
	{"WEIR_MEMORY_LIMIT=512", "less than 1MiB"},
	{"WEIR_MEMORY_LIMIT=512MB", "not a whole number of KiB"},
	{"WEIR_MEMORY_LIMIT=-1GiB", "not a whole number of KiB"},
	{"WEIR_MEMORY_LIMIT=0.5GiB", "not a whole number of KiB"},
	{"WEIR_MEMORY_LIMIT=99999999999GiB", "too large"},
	{"WEIR_RPM=-1", "negative"},
	{"WEIR_RPM=1e3", "not a whole number"},
	{"WEIR_RPM=9999999999", "over a billion"},
	{"WEIR_HEARTBEAT=15", "it has no unit (ms, s, m or h); takes a duration of at least 1s, for example WEIR_HEARTBEAT=15s"},
	{"WEIR_HEARTBEAT=999ms", "too short"},
	{"WEIR_RETENTION=7d", "ms, s, m and h"},
	{"WEIR_RETENTION=0s", "too short; takes a duration of more than 0s"},
	{"WEIR_ORPHAN_LIMIT=0s", "too short"},
	{"WEIR_IDLE_TIMEOUT=0s", "too short"},
	{"WEIR_FIRST_TOKEN_TIMEOUT=0s", "too short"},
	{"WEIR_DETACH_GRACE=-1s", "too short; takes a duration of at least 0s"},
	{"WEIR_DRAIN_GRACE=99999999h", "not a duration"},
	{"WEIR_FORWARD_AUTH=yes", "neither true nor false"},
	{"WEIR_ALLOWED_HOSTS=a,,b", "host 2 is empty"},
	{"WEIR_ALLOWED_HOSTS=a:80", "host 1 is no host name without port"},
	{"WEIR_ALLOWED_HOSTS=*.example.com", "DNS rebinding"},
	{"WEIR_CORS_ORIGINS=*", "origin 1 is a pattern: calls carry credentials, and browsers refuse those unless the origin is named"},
	{"WEIR_CORS_ORIGINS=https://a,", "origin 2 is empty"},
	{"WEIR_CORS_ORIGINS=example.com", "is not scheme://host"},
	{"WEIR_CORS_ORIGINS=localhost:3000", "is not scheme://host"},
	{"WEIR_CORS_ORIGINS=https://a/path", "more than scheme, host and port"},
	{"WEIR_CORS_ORIGINS=https://a?b", "more than scheme, host and port"},
	{"WEIR_CORS_ORIGINS=https://u@a", "more than scheme, host and port"},
	{"WEIR_CORS_ORIGINS=https://a:99999", "up to 65535"},
	{"WEIR_CORS_ORIGINS=https://a:", "a colon without a port"},
	{"WEIR_CORS_ORIGINS=https://bücher.example", "xn--"},
	{"WEIR_ALLOW_ANONYMOUS=maybe", "neither true nor false"},
	{"WEIR_RPM=\x1b[31m", `got "\x1b[31m"`},
}

func TestWrongValues(t *testing.T) {
	for _, tt := range wrongValues {
		t.Run(tt.setting, func(t *testing.T) {
			_, err := load(t, "", []string{tt.setting})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake, several lines:\n%v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
}

func TestWrongSecretsAreNotShown(t *testing.T) {
	tests := []struct{ setting, want string }{
		{"OPENAI_API_KEY=hush hush", "OPENAI_API_KEY: got a value of 9 characters from .env: it has a space"},
		{"OPENAI_API_KEY=hushé", "a value of 5 characters"},
		{"WEIR_API_KEYS=hush-hush,hush", "key 2 is too short"},
		{"WEIR_API_KEYS=hush-hush,hush-hush", "key 2 is the same as key 1"},
		{"WEIR_API_KEYS=hush-hush,", "key 2 is empty"},
		{"WEIR_API_KEYS=hush hush", "key 1 has a space"},
		{"WEIR_SECRET=hush", "a value of 4 characters from .env: it is too short; takes at least 16"},
		{"WEIR_SECRET= # hush-hush-hush-hush", "it looks like a comment"},
		{"OPENAI_BASE_URL=ftp://hush:hush@host/v1", "a value of 23 characters"},
		{"OPENAI_BASE_URL=hush:hush@host/v1", "a value of 17 characters"},
		{"OPENAI_BASE_URL=sk-hush", "a value of 7 characters"},
		{"WEIR_REDIS_URL=hush", "a value of 4 characters"},
		{"WEIR_REDIS_URL=redis://hush:hu sh@host", "a value of 23 characters"},
		{"WEIR_REDIS_URL=redis://hush:99hush@host:port", "as %XX"},
		{"WEIR_REDIS_URL=redis://hush:hush@host/hush", "not the number of a database"},
		{"WEIR_REDIS_URL='redis://:12#hush@host'", "# is written as %23"},
	}
	for _, tt := range tests {
		t.Run(tt.setting, func(t *testing.T) {
			_, err := load(t, tt.setting, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("the error quotes the value: %v", err)
			}
		})
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	_, err := load(t, "WEIR_RPM=x\nWEIR_HEARTBEAT=1\nWEIR_SECRET=short\n",
		[]string{"WEIR_ADDR=:8080", "WEIR_TPM=1", "WEIR_STORE=tape"}, "-config=x.yaml")
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{"-config", "WEIR_STORE", "WEIR_RPM", "WEIR_HEARTBEAT", "WEIR_SECRET", "WEIR_TPM", "WEIR_ADDR"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("line %d should be about %s:\n%v", i+1, want, err)
		}
	}
	if len(lines) != 7 {
		t.Errorf("%d lines:\n%v", len(lines), err)
	}
}

func TestAnonymousBeyondLoopback(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		args    []string
		refused string // how the error begins; empty for none
	}{
		{"loopback", []string{"WEIR_ADDR=localhost:80"}, nil, ""},
		{"all interfaces", []string{"WEIR_ADDR=:8080"}, nil, "WEIR_ADDR: :8080 is not loopback"},
		{"by flag", nil, []string{"-addr=0.0.0.0:80"}, "-addr: 0.0.0.0:80 is not loopback"},
		{"said no", []string{"WEIR_ADDR=:80", "WEIR_ALLOW_ANONYMOUS=false"}, nil, "WEIR_ADDR: :80 is not loopback"},
		{"said yes", []string{"WEIR_ADDR=:80", "WEIR_ALLOW_ANONYMOUS=true"}, nil, ""},
		{"keys", []string{"WEIR_ADDR=:80", "WEIR_API_KEYS=some-long-key"}, nil, ""},
		{"wrong keys are not none", []string{"WEIR_ADDR=:80", "WEIR_API_KEYS=short"}, nil, "WEIR_API_KEYS: got"},
		{"a wrong yes is not no", []string{"WEIR_ADDR=:80", "WEIR_ALLOW_ANONYMOUS=yes"}, nil, "WEIR_ALLOW_ANONYMOUS: got"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, "", tt.environ, tt.args...)
			if tt.refused == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.refused) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want %q alone", err, tt.refused)
			}
			if !strings.Contains(tt.refused, "loopback") {
				return
			}
			for _, way := range []string{"WEIR_API_KEYS=…", "WEIR_ALLOW_ANONYMOUS=true", "WEIR_ADDR=127.0.0.1:8080"} {
				if !strings.Contains(err.Error(), way) {
					t.Errorf("%v does not tell of %s", err, way)
				}
			}
		})
	}
}

func TestForwardAuthWithKeys(t *testing.T) {
	_, err := load(t, "", []string{"WEIR_FORWARD_AUTH=true", "WEIR_API_KEYS=some-long-key"})
	if err == nil || !strings.Contains(err.Error(), "would leak upstream") {
		t.Errorf("got %v", err)
	}
	if c, err := load(t, "", []string{"WEIR_FORWARD_AUTH=true"}); err != nil || !c.ForwardAuth {
		t.Errorf("without keys: got %v, %v", c, err)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		name, env string
		environ   []string
		want      []string // in order, what the warnings begin with
	}{
		{"typo in the environment", "", []string{"WEIR_ADRR=x"}, []string{"WEIR_ADRR is not a name this version knows; did you mean WEIR_ADDR?"}},
		{"typo in the file", "WEIR_HEARTBEATS=1s", nil, []string{"WEIR_HEARTBEATS from .env is not a name this version knows; did you mean WEIR_HEARTBEAT?"}},
		{"nothing near", "", []string{"WEIR_QUITE_ANOTHER_THING=x"}, []string{"WEIR_QUITE_ANOTHER_THING is not a name this version knows"}},
		{"sorted", "WEIR_B=1\nWEIR_C=1", []string{"WEIR_A=1"}, []string{"WEIR_A ", "WEIR_B ", "WEIR_C "}},
		{"others' names", "", []string{"PATH=/bin", "WEIRD=1", "OPENAI_ORG_ID=x", "=C:=x"}, nil},
		{"later providers", "", []string{"ANTHROPIC_API_KEY=hush", "ANTHROPIC_BASE_URL=hush", "GEMINI_API_KEY=hush"}, []string{
			"ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL is ignored: this version does not have the Anthropic provider",
			"GEMINI_API_KEY is ignored",
		}},
		{"set to nothing", "", []string{"ANTHROPIC_API_KEY=", "WEIR_TPM=", "WEIR_REDIS_URL=", "WEIR_REDIS_PREFIX="}, nil},
		{"disk", "", []string{"WEIR_DATA_DIR=./data", "WEIR_DISK_SYNC=os", "WEIR_MEMORY_LIMIT=1MiB"}, nil},
		{"disk settings without a disk", "WEIR_DATA_DIR=x", []string{"WEIR_STORE=memory", "WEIR_DISK_LIMIT=1GiB"}, []string{
			"WEIR_DATA_DIR, WEIR_DISK_LIMIT has no effect while the store is memory",
		}},
		{"disk settings with a Redis", "", []string{"WEIR_REDIS_URL=unix:///run/redis.sock", "WEIR_DISK_SYNC=os", "WEIR_REDIS_PREFIX=x:"}, []string{
			"WEIR_DISK_SYNC has no effect while the store is redis",
		}},
		{"redis settings without a Redis", "", []string{"WEIR_REDIS_PREFIX=x:"}, []string{"WEIR_REDIS_PREFIX has no effect while the store is disk"}},
		{"admin for all", "", []string{"WEIR_ADMIN_ADDR=:9091"}, []string{"WEIR_ADMIN_ADDR=:9091 is not loopback"}},
		{"anonymous with keys", "", []string{"WEIR_ALLOW_ANONYMOUS=true", "WEIR_API_KEYS=some-long-key"}, []string{"WEIR_ALLOW_ANONYMOUS has no effect"}},
		{
			"kubernetes service links", "",
			[]string{
				"KUBERNETES_SERVICE_HOST=10.0.0.1", "WEIR_SERVICE_HOST=10.0.0.2", "WEIR_SERVICE_PORT_HTTP=80", "WEIR_PORT=tcp://x",
				"WEIR_PORT_8080_TCP_ADDR=10.0.0.2", "WEIR_REDIS_PORT_6379_TCP=x", "WEIR_ADRR=x",
			},
			[]string{"WEIR_ADRR "},
		},
		{"a port elsewhere", "", []string{"WEIR_PORT=8080"}, []string{"WEIR_PORT is not a name this version knows"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.env, tt.environ)
			if err != nil {
				t.Fatal(err)
			}
			ok := slices.EqualFunc(c.Warnings, tt.want, strings.HasPrefix)
			if !ok || strings.Contains(strings.Join(c.Warnings, " "), "hush") {
				t.Errorf("got  %q\nwant %q", c.Warnings, tt.want)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	for text, want := range map[string]string{
		"https://Example.COM":             "https://example.com",
		"https://example.com:443":         "https://example.com",
		"http://example.com:80/":          "http://example.com",
		"http://example.com:080":          "http://example.com",
		"http://example.com:443":          "http://example.com:443",
		"http://[::1]:3000":               "http://[::1]:3000",
		"http://[0:0::1]":                 "http://[::1]",
		"chrome-extension://abcdefghijkl": "chrome-extension://abcdefghijkl",
		"null":                            "null",
	} {
		if got, err := parseOrigin(text); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1MiB": 1 << 20, "64mib": 64 << 20, "2 GiB": 2 << 30, "2048KiB": 2 << 20, "1048576": 1 << 20,
	} {
		if got, err := parseSize(1)(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", text, got, err, want)
		}
	}
}

// .env.example must stay a whole and true description of the settings.
func TestExampleFile(t *testing.T) {
	data, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	example := string(data)
	assignment := regexp.MustCompile(`(?m)^#?([A-Z][A-Z0-9_]*)=(.*)$`)

	defaults := map[string]string{}
	for _, match := range assignment.FindAllStringSubmatch(example, -1) {
		name := match[1]
		if _, twice := defaults[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		defaults[name] = match[2]
	}
	known := knownNames()
	for _, name := range known {
		if _, there := defaults[name]; !there {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range regexp.MustCompile(`\b(WEIR|OPENAI|ANTHROPIC|GEMINI|AZURE|OLLAMA)_[A-Z0-9_]+`).FindAllString(example, -1) {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not a name the loader knows", name)
		}
	}
	for _, v := range variables {
		if got := defaults[v.name]; got != v.def {
			t.Errorf("%s: the file says the default is %q, it is %q", v.name, got, v.def)
		}
	}

	t.Run("as it stands", func(t *testing.T) {
		c, err := load(t, example, nil)
		if err != nil || !reflect.DeepEqual(c, wantDefaults()) {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("uncommented", func(t *testing.T) {
		c, err := load(t, assignment.ReplaceAllString(example, "$1=$2"), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := wantDefaults()
		want.AdminAddrSet, want.OpenAI.On = true, true
		c.Warnings = nil
		if !reflect.DeepEqual(c, want) {
			t.Errorf("got %v\nwant %v", c, want)
		}
	})
}

func TestNearest(t *testing.T) {
	names := knownNames()
	for word, want := range map[string]string{
		"WEIR_ADDRESS": "WEIR_ADDR", "WEIR_APIKEYS": "WEIR_API_KEYS", "WEIR_RPMS": "WEIR_RPM",
		"WEIR_CORS_ORIGIN": "WEIR_CORS_ORIGINS", "WEIR_" + strings.Repeat("X", 100): "", "WEIR_PORT": "", "WEIR_ZZZZZZZZZZZZZZ": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
	if d := editDistance("kitten", "sitting"); d != 3 {
		t.Error(fmt.Sprint("kitten to sitting: ", d))
	}
}
