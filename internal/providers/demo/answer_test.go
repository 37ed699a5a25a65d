package demo

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLastPrompt(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"string", `{"messages":[{"role":"user","content":"a"}]}`, "a"},
		{"last of two", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`, "c"},
		{"followed by another role", `{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}`, "a"},
		{"parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"b"}]}]}`, "a\nb"},
		{"no text", `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, ""},
		{"null", `{"messages":[{"role":"user","content":null}]}`, ""},
		{"escaped and trimmed", `{"messages":[{"role":"user","content":" \n\u00fc\t"}]}`, "ü"},
		{"no user", `{"messages":[{"role":"system","content":"a"}]}`, ""},
		{"no messages", `{}`, ""},
		{"messages of another type", `{"messages":"a"}`, ""},
		{"no JSON", `nonsense`, ""},
		{"nothing", ``, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := lastPrompt([]byte(tt.body)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGreeting(t *testing.T) {
	tests := []struct{ prompt, want string }{
		{"", "Hello! Your message had no text"},
		{"Hello!", "Hello to you, too!"},
		{"good\nmorning", "You wrote: “good morning”"},
		{"What is this?", "You asked: “What is this?”"},
		{"line\r\n\x00\x1b[0m line", `“line \[0m line”`},
		{"<img src=x onerror=alert(1)>", `“\<img src=x onerror=alert(1)\>”`},
		{"*a* _b_ `c` [d](e) |f| ~g~ &amp; \\", "“\\*a\\* \\_b\\_ \\`c\\` \\[d\\](e) \\|f\\| \\~g\\~ \\&amp; \\\\”"},
		{strings.Repeat("ü", 500), "“" + strings.Repeat("ü", maxQuote) + "…”"},
	}
	for _, tt := range tests {
		if got := greeting(tt.prompt); !strings.Contains(got, tt.want) {
			t.Errorf("%q: got %q, want %q in it", tt.prompt, got, tt.want)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, prompt := range []string{"", "Hi", "What is Weir?", strings.Repeat("word ", 1000), strings.Repeat("*", 1000)} {
		got := answer(prompt)
		if n := utf8.RuneCountInString(got); n < 1200 || n > 1800 {
			t.Errorf("%.10q: %d characters", prompt, n)
		}
		if strings.Count(got, "```")%2 != 0 {
			t.Errorf("%.10q: a code block is left open", prompt)
		}
		for _, s := range scripts {
			if !strings.Contains(got, "| `"+s.name+"` |") {
				t.Errorf("the table lacks %s", s.name)
			}
		}
	}
}

func TestLongAnswer(t *testing.T) {
	text := longAnswer()
	if len(text) < 90_000 || len(text) > 110_000 {
		t.Errorf("%d bytes", len(text))
	}
	if n := strings.Count(text, "\nLine "); n != longLines {
		t.Errorf("%d lines", n)
	}
}

func TestNextToken(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{"Hello, world!", "Hello|,| world|!"},
		{"Everything", "Everyt|hing"},
		{"a\n\nb  c", "a|\n\nb|  c"},
		{"x ", "x| "},
		{" (y) ", " (|y|)| "},
		{"“ü…” 😀", "“|ü|…|”| 😀"},
		{"\xff\xfe", "\xff|\xfe"},
	}
	for _, tt := range tests {
		var tokens []string
		for rest := tt.text; rest != ""; {
			var token string
			token, rest = nextToken(rest)
			tokens = append(tokens, token)
		}
		if got := strings.Join(tokens, "|"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

// FuzzAnswer: whatever the prompt, its tokens are whole characters, and the
// answer again when joined.
func FuzzAnswer(f *testing.F) {
	f.Add("Hello")
	f.Add("ü\x00\xff\u2028<b>")
	f.Fuzz(func(t *testing.T, prompt string) {
		whole := answer(prompt)
		if !utf8.ValidString(whole) {
			t.Fatalf("not UTF-8: %q", whole)
		}
		var joined strings.Builder
		for rest := whole; rest != ""; {
			var token string
			if token, rest = nextToken(rest); token == "" || !utf8.ValidString(token) {
				t.Fatalf("token %q of %q", token, whole)
			}
			joined.WriteString(token)
		}
		if joined.String() != whole {
			t.Errorf("the tokens of %q differ from it", whole)
		}
	})
}
