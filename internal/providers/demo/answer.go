package demo

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// maxQuote bounds, in characters, how much of the prompt an answer repeats.
const maxQuote = 120

// text is what the model says.
func (s script) text(prompt string) string {
	switch s.name {
	case slow:
		return slowAnswer
	case long:
		return longAnswer()
	default:
		return answer(prompt)
	}
}

// answer is what the default model says: what Weir is, and what to try.
func answer(prompt string) string {
	var b strings.Builder
	b.WriteString(greeting(prompt))
	b.WriteString(` I am the **demo model**: no key, no network, always the same words. What carries them is real, though, so let me speak of that.

## What Weir does

Every answer is written *once*, into an append-only log, and everybody reads that log:

- **Resume.** Reload in mid-sentence: you come back at the very token where you left.
- **Many readers.** Open this stream in a second tab. Nothing is asked of the model twice.
- **Cancel.** One call stops the model for all readers. Closing a tab is no cancel.
- **No fake end.** A broken answer ends in an error, never in something that looks complete.

## Try it

` + "```js" + `
const url = '/v1/stream?prompt=Hi&idempotency_key=' + crypto.randomUUID()
const source = new EventSource(url)
source.addEventListener('start', () => { out.textContent = '' })
source.onmessage = (e) => {
  out.textContent += JSON.parse(e.data).choices[0]?.delta.content ?? ''
}
source.addEventListener('done', () => source.close())
` + "```" + `

` + "```sh" + `
curl -N 'http://127.0.0.1:8080/v1/stream?model=demo/long&prompt=Hi'
` + "```" + `

## Models without a key

| model | what it does |
| --- | --- |
`)
	for _, s := range scripts {
		fmt.Fprintf(&b, "| `%s` | %s |\n", s.name, s.about)
	}
	b.WriteString("\nFor a real model set `OPENAI_API_KEY` in `.env` and start again.\n")
	return b.String()
}

func greeting(prompt string) string {
	quote := escapeMarkdown(shorten(prompt, maxQuote))
	switch {
	case quote == "":
		return "Hello! Your message had no text, which suits me:"
	case isGreeting(prompt):
		return fmt.Sprintf("%s to you, too!", strings.TrimRight(quote, " .!?"))
	case strings.HasSuffix(quote, "?"):
		return fmt.Sprintf("You asked: “%s” A good question for a real model.", quote)
	default:
		return fmt.Sprintf("You wrote: “%s” Thank you, that arrived whole.", quote)
	}
}

func isGreeting(prompt string) bool {
	switch strings.ToLower(strings.Trim(prompt, " .!?\t\r\n")) {
	case "hi", "hello", "hey", "good morning", "good evening", "hallo", "moin":
		return true
	}
	return false
}

// slowAnswer is short: at its speed these are some twenty seconds.
const slowAnswer = "Sorry to keep you waiting. I am the slow demo model: " +
	"you saw no token for a while, yet your connection stayed open. " +
	"You may leave now and come back; I go on without you."

// longLines make about 95 KB and 24,000 tokens: two minutes.
const longLines = 1500

// longAnswer numbers its lines, so that a gap or a repetition after a resume
// would show.
var longAnswer = sync.OnceValue(func() string {
	sentences := []string{
		"the water goes over the weir, and none of it is lost.",
		"leave whenever you like; the river goes on.",
		"come back, and it is at the very drop where you left it.",
		"another bank, another reader, and still the same water.",
		"a dam breaks with a noise, never with a quiet full stop.",
		"what was written once is read as often as you like.",
	}
	var b strings.Builder
	b.WriteString("A long answer, to disconnect from and come back to. Its lines are numbered, so you can see that none is missing.\n\n")
	for i := range longLines {
		fmt.Fprintf(&b, "Line %d: %s\n", i+1, sentences[i%len(sentences)])
		if i%10 == 9 {
			b.WriteByte('\n')
		}
	}
	b.WriteString("That was all of it.\n")
	return b.String()
})

// lastPrompt is the text of the user's last message: its content, or the text
// parts of its content.
func lastPrompt(body []byte) string {
	var prompt string
	gjson.GetBytes(body, "messages").ForEach(func(_, message gjson.Result) bool {
		if message.Get("role").Str == "user" {
			prompt = contentText(message.Get("content"))
		}
		return true
	})
	return strings.TrimSpace(prompt)
}

func contentText(content gjson.Result) string {
	if content.Type == gjson.String {
		return content.Str
	}
	var parts []string
	content.ForEach(func(_, part gjson.Result) bool {
		if part.Get("type").Str == "text" {
			parts = append(parts, part.Get("text").Str)
		}
		return true
	})
	return strings.Join(parts, "\n")
}

// shorten puts text on one line of at most so many characters, without control
// characters.
func shorten(text string, most int) string {
	var b strings.Builder
	length, space := 0, false
	for _, r := range text {
		if unicode.IsSpace(r) {
			space = length > 0
			continue
		}
		if !unicode.IsPrint(r) {
			continue
		}
		if space {
			b.WriteByte(' ')
			length, space = length+1, false
		}
		if length >= most {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
		length++
	}
	return b.String()
}

// escapeMarkdown keeps a quotation from being read as Markdown or HTML.
func escapeMarkdown(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strings.ContainsRune("\\`*_[]<>|~&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// maxToken is the longest token, in characters: long words come in pieces, as
// from a model.
const maxToken = 6

// nextToken cuts the next piece off a text: a word, a part of a long one, or a
// punctuation mark, each with the white space before it. It never cuts a
// character. token is not empty unless text is.
func nextToken(text string) (token, rest string) {
	end, letters := 0, 0
	for end < len(text) {
		r, size := utf8.DecodeRuneInString(text[end:])
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			if letters == maxToken {
				return text[:end], text[end:]
			}
			letters++
		case unicode.IsSpace(r):
			if letters > 0 {
				return text[:end], text[end:]
			}
		default:
			if letters > 0 {
				return text[:end], text[end:]
			}
			return text[:end+size], text[end+size:]
		}
		end += size
	}
	return text, ""
}
