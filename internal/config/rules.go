package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// notBuilt is a name that belongs to a later version.
type notBuilt struct {
	name   string
	what   string // what is missing; names with the same one share a warning
	refuse string // why ignoring it would be wrong; empty: a warning will do
}

var notBuiltNames = []notBuilt{
	{"WEIR_TPM", "token limits", "a limit that nobody keeps is dangerous; unset it"},
	{"WEIR_MAX_STREAMS", "limits of concurrent streams", "a limit that nobody keeps is dangerous; unset it"},
	{"ANTHROPIC_API_KEY", "the Anthropic provider", ""},
	{"ANTHROPIC_BASE_URL", "the Anthropic provider", ""},
	{"GEMINI_API_KEY", "the Gemini provider", ""},
	{"GEMINI_BASE_URL", "the Gemini provider", ""},
	{"AZURE_OPENAI_API_KEY", "the Azure OpenAI provider", ""},
	{"AZURE_OPENAI_ENDPOINT", "the Azure OpenAI provider", ""},
	{"OLLAMA_BASE_URL", "the Ollama preset (OPENAI_BASE_URL=http://localhost:11434/v1 reaches it)", ""},
}

// checkNotBuilt refuses, or warns of, the names that this version can't honour.
func checkNotBuilt(c *Config, src sources) error {
	var problems []error
	var missing []string
	names := map[string][]string{}
	for _, n := range notBuiltNames {
		if !src.given(n.name) {
			continue
		}
		if n.refuse != "" {
			problems = append(problems, fmt.Errorf("%s is set%s: this version does not have %s; %s",
				n.name, src.lookup(n.name).from, n.what, n.refuse))
			continue
		}
		if len(names[n.what]) == 0 {
			missing = append(missing, n.what)
		}
		names[n.what] = append(names[n.what], n.name)
	}
	for _, what := range missing {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s is ignored: this version does not have %s",
			strings.Join(names[what], ", "), what))
	}
	return errors.Join(problems...)
}

// chooseStore has a Redis that is named be the store, and warns of settings
// that belong to another store. Two answers to the question which one is meant
// are an error: a wrong guess would lose streams, or write them where they are
// not to be.
func chooseStore(c *Config, src sources, wrong map[string]bool) error {
	store, redis := src.lookup("WEIR_STORE"), src.lookup("WEIR_REDIS_URL")
	if wrong["WEIR_STORE"] {
		return nil
	}
	switch {
	case redis.text != "" && store.text != "" && c.Store != StoreRedis:
		return fmt.Errorf("WEIR_REDIS_URL: is set%s, which means the redis store, but WEIR_STORE is %s%s; unset one of them",
			redis.from, c.Store, store.from)
	case redis.text != "":
		c.Store = StoreRedis
	case c.Store == StoreRedis:
		return fmt.Errorf("WEIR_STORE: is redis%s, but nothing says where that is; set WEIR_REDIS_URL, for example WEIR_REDIS_URL=redis://localhost:6379",
			store.from)
	}
	var idle []string
	for _, v := range variables {
		if of := storeOf[v.name]; of != "" && of != c.Store && src.given(v.name) {
			idle = append(idle, v.name)
		}
	}
	if len(idle) > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s has no effect while the store is %s", strings.Join(idle, ", "), c.Store))
	}
	return nil
}

// storeOf names the store of the settings that only one store has.
var storeOf = map[string]string{
	"WEIR_DATA_DIR":     StoreDisk,
	"WEIR_DISK_SYNC":    StoreDisk,
	"WEIR_DISK_LIMIT":   StoreDisk,
	"WEIR_REDIS_PREFIX": StoreRedis,
}

// checkTogether finds settings that are right each by itself but not together.
// It draws no conclusion from a value that is wrong by itself: that is an error
// of its own already, and fixing it may be all there is to do.
func checkTogether(c *Config, src sources, wrong map[string]bool) []error {
	var problems []error
	keys := src.given("WEIR_API_KEYS")
	if !keys && !c.AllowAnonymous && !wrong["WEIR_ALLOW_ANONYMOUS"] && !c.Loopback() {
		problems = append(problems, fmt.Errorf(
			"%s: %s is not loopback, so anybody who reaches it could spend your credit; "+
				"set WEIR_API_KEYS=… to ask clients for a key, or WEIR_ALLOW_ANONYMOUS=true to serve everybody, "+
				"or WEIR_ADDR=127.0.0.1:8080 to serve this machine only",
			src.lookup("WEIR_ADDR").label, c.Addr))
	}
	if keys && c.ForwardAuth {
		problems = append(problems, errors.New(
			"WEIR_FORWARD_AUTH: can't be true while WEIR_API_KEYS is set: the client's Authorization is its Weir key then, and would leak upstream; unset one of them"))
	}
	if c.AdminAddr != "" && c.AdminAddr == c.Addr && !strings.HasSuffix(c.Addr, ":0") {
		problems = append(problems, fmt.Errorf("WEIR_ADMIN_ADDR: %s is the address of the clients already; take another port, or nothing to switch it off", c.AdminAddr))
	}
	if c.AdminAddr != "" && !isLoopback(c.AdminAddr) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("WEIR_ADMIN_ADDR=%s is not loopback: metrics and profiles have no authentication", c.AdminAddr))
	}
	if keys && c.AllowAnonymous {
		c.Warnings = append(c.Warnings, "WEIR_ALLOW_ANONYMOUS has no effect while WEIR_API_KEYS is set")
	}
	if slices.Contains(c.CORSOrigins, "null") {
		c.Warnings = append(c.Warnings, "WEIR_CORS_ORIGINS has null: every sandboxed frame and local file is that origin")
	}
	return problems
}

// serviceLink matches what Kubernetes sets for services called weir or
// weir-something.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// unknownNames warns of names that look like ours and are not: a mistyped one
// would otherwise do nothing, silently.
func unknownNames(src sources) []string {
	known := knownNames()
	_, inKubernetes := src.environ["KUBERNETES_SERVICE_HOST"]
	given := maps.Clone(src.environ)
	maps.Copy(given, src.file)
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		_, fromEnviron := src.environ[name]
		switch {
		case !strings.HasPrefix(name, "WEIR_") || slices.Contains(known, name):
			continue
		case inKubernetes && fromEnviron && serviceLink.MatchString(name):
			continue
		}
		hint := ""
		if near := nearest(name, known); near != "" {
			hint = "; did you mean " + near + "?"
		}
		warnings = append(warnings, fmt.Sprintf("%s%s is not a name this version knows%s", name, src.lookup(name).from, hint))
	}
	return warnings
}

// knownNames are all names with a meaning, in this version or a later one.
func knownNames() []string {
	var names []string
	for _, v := range variables {
		names = append(names, v.name)
	}
	for _, n := range notBuiltNames {
		names = append(names, n.name)
	}
	return names
}

// nearest returns the name that takes the fewest edits to reach, or "" when
// even that one has little to do with the word.
func nearest(word string, names []string) string {
	if len(word) > 64 {
		return "" // no name is that long, and the distance is quadratic
	}
	best, least := "", max(2, len(strings.TrimPrefix(word, "WEIR_"))/2)+1
	for _, name := range names {
		if d := editDistance(word, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
