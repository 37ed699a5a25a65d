package providers

import (
	"slices"
	"strings"
)

// families are the model names that belong to a provider wherever it is on.
var families = []struct {
	provider string
	prefixes []string
}{
	{"openai", []string{"gpt-", "o1", "o3", "o4", "chatgpt-"}},
	{"anthropic", []string{"claude-"}},
	{"gemini", []string{"gemini-"}},
}

// Registry finds the provider of a model name. It does not change once built.
type Registry struct {
	names        []string // in the order they were added
	byName       map[string]Provider
	defaultModel string
}

// Demo is the name of the provider that is always there. It answers to its own
// names only and is nobody's default.
const Demo = "demo"

// NewRegistry returns a registry with no provider. A request without a model
// gets defaultModel; if that is empty too, the first provider's own choice.
func NewRegistry(defaultModel string) *Registry {
	return &Registry{byName: map[string]Provider{}, defaultModel: defaultModel}
}

// Add adds a provider under a name. The first one added is the default.
func (r *Registry) Add(name string, p Provider) {
	r.names = append(r.names, name)
	r.byName[name] = p
}

// Route is where a request goes.
type Route struct {
	Name     string // of the provider
	Provider Provider
	Model    string // as the provider calls it
}

// DefaultModel is the model of a request that names none.
func (r *Registry) DefaultModel() string { return r.defaultModel }

// Names lists the providers, the default first.
func (r *Registry) Names() []string { return slices.Clone(r.names) }

// Provider returns the provider of that name.
func (r *Registry) Provider(name string) (Provider, bool) {
	p, ok := r.byName[name]
	return p, ok
}

// Resolve finds who answers for a model name: "provider/model" when that
// provider is on, then the family the name belongs to, then the default
// provider, which gets the name unchanged.
func (r *Registry) Resolve(model string) (Route, bool) {
	if prefix, rest, split := strings.Cut(model, "/"); split && prefix != Demo {
		if p, on := r.byName[prefix]; on && rest != "" {
			return Route{prefix, p, rest}, true
		}
	}
	if model == Demo || strings.HasPrefix(model, Demo+"/") {
		p, on := r.byName[Demo]
		return Route{Demo, p, model}, on
	}
	for _, family := range families {
		if p, on := r.byName[family.provider]; on && hasPrefix(model, family.prefixes) {
			return Route{family.provider, p, model}, true
		}
	}
	for _, name := range r.names {
		if name != Demo {
			return Route{name, r.byName[name], model}, true
		}
	}
	return Route{}, false
}

func hasPrefix(model string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(model, p) })
}
