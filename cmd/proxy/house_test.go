package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// allowed says which of our packages a package may import. Arrows run one way,
// and some libraries have one importer.
var allowed = map[string][]string{
	"weir/cmd/proxy":                 {"*"},
	"weir/internal/config":           {},
	"weir/internal/metrics":          {"weir/internal/stream"},
	"weir/internal/httpapi":          {"weir/internal/stream", "weir/internal/providers", "weir/internal/chat", "weir/internal/sse", "weir/internal/ratelimit"},
	"weir/internal/providers":        {"weir/internal/stream"},
	"weir/internal/providers/openai": {"weir/internal/providers", "weir/internal/stream", "weir/internal/chat", "weir/internal/sse"},
	"weir/internal/providers/demo":   {"weir/internal/providers", "weir/internal/stream", "weir/internal/chat"},
	"weir/internal/chat":             {"weir/internal/stream"},
	"weir/internal/stream":           {},
	"weir/internal/stream/live":      {"weir/internal/stream"},
	"weir/internal/stream/memory":    {"weir/internal/stream", "weir/internal/stream/live"},
	"weir/internal/stream/segment":   {"weir/internal/stream", "weir/internal/stream/live"},
	"weir/internal/stream/redislog":  {"weir/internal/stream", "weir/internal/stream/live"},
	"weir/internal/redistest":        {},
	"weir/internal/stream/storetest": {"weir/internal/stream"},
	"weir/internal/sse":              {},
	"weir/internal/ratelimit":        {},
	"weir/internal/upstreamtest":     {},
	"weir/web":                       {},
	"weir/scripts/gotest":            {},

	// The benchmark knows Weir by its wire only: it measures what anybody would.
	"weir/bench":                      {"weir/bench/internal/compare", "weir/bench/internal/load", "weir/bench/internal/passthrough", "weir/bench/internal/process", "weir/bench/internal/upstream"},
	"weir/bench/internal/compare":     {"weir/bench/internal/load", "weir/bench/internal/process"},
	"weir/bench/internal/load":        {"weir/bench/internal/histogram", "weir/bench/internal/netloop", "weir/bench/internal/process", "weir/bench/internal/wire"},
	"weir/bench/internal/upstream":    {"weir/bench/internal/netloop", "weir/bench/internal/wire"},
	"weir/bench/internal/passthrough": {},
	"weir/bench/internal/process":     {},
	"weir/bench/internal/netloop":     {},
	"weir/bench/internal/wire":        {},
	"weir/bench/internal/histogram":   {},
}

var onlyImporter = map[string]string{
	"github.com/gofiber/":               "weir/internal/httpapi",
	"github.com/valyala/":               "weir/internal/httpapi",
	"github.com/sashabaranov/go-openai": "weir/internal/providers/openai",
	"github.com/joho/godotenv":          "weir/internal/config",
	"golang.org/x/time/rate":            "weir/internal/ratelimit",
	"github.com/prometheus/":            "weir/internal/metrics",
	"github.com/redis/":                 "weir/internal/stream/redislog",
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "weir/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		of, imports := fields[0], fields[1:]
		may, known := allowed[of]
		if !known {
			t.Errorf("%s has no place in the house: say in this test what it may import", of)
		}
		for _, path := range imports {
			if strings.HasPrefix(path, "weir/") && !slices.Contains(may, path) && !slices.Contains(may, "*") {
				t.Errorf("%s imports %s", of, path)
			}
			for prefix, only := range onlyImporter {
				if strings.HasPrefix(path, prefix) && of != only {
					t.Errorf("%s imports %s, which is for %s", of, path, only)
				}
			}
		}
	}
}

// The README knows every setting.
func TestREADMENamesEverySetting(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^#?([A-Z][A-Z_]+)=`).FindAllSubmatch(example, -1)
	if len(names) < 30 {
		t.Fatalf("only %d names in .env.example", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(readme), "`"+string(name[1])+"`") {
			t.Errorf("the README does not name %s", name[1])
		}
	}
}
