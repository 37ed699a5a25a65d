package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/joho/godotenv"
)

const (
	defaultEnvFile  = ".env"
	defaultYAMLFile = "weir.yaml"

	// maxEnvFile keeps a wrong -env from being read whole. Real ones have a
	// few KiB.
	maxEnvFile = 64 << 10
)

// flagValues are the command line, read. given tells a flag set to nothing
// from one that is absent.
type flagValues struct {
	addr, env, yaml string
	version         bool
	given           map[string]bool
}

func parseFlags(args []string, usage io.Writer) (flagValues, error) {
	f := flagValues{given: map[string]bool{}}
	set := flag.NewFlagSet("proxy", flag.ContinueOnError)
	set.SetOutput(io.Discard) // the caller reports the error
	set.Usage = func() {}
	set.StringVar(&f.addr, "addr", "", "listening `address`, host:port; beats WEIR_ADDR")
	set.StringVar(&f.env, "env", defaultEnvFile, "read the environment `file`; the default may be missing")
	set.StringVar(&f.yaml, "config", defaultYAMLFile, "read the YAML `file` (not in this version)")
	set.BoolVar(&f.version, "version", false, "print the version and stop")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(set, usage)
			return f, err
		}
		return f, fmt.Errorf("%w; -h lists the flags", err)
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %s: settings are flags (-h lists them) or environment variables", quote(set.Arg(0)))
	}
	set.Visit(func(fl *flag.Flag) { f.given[fl.Name] = true })
	return f, nil
}

func printUsage(set *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "Weir, an LLM token-streaming proxy.\n\nUsage: proxy [flags]\n\n")
	set.SetOutput(w)
	set.PrintDefaults()
	fmt.Fprint(w, "\nVariables, from the environment or the environment file (.env.example explains them):\n\n")
	for _, v := range variables {
		if v.def == "" {
			fmt.Fprintf(w, "  %s\n", v.name)
			continue
		}
		fmt.Fprintf(w, "  %-26s default %s\n", v.name, v.def)
	}
}

// value is a setting as it was found.
type value struct {
	text  string
	found bool
	file  bool   // it stood in the environment file
	label string // what the user calls the setting: the flag, or the name
	from  string // " from FILE", for messages; empty for flag and environment
}

// sources are the places a setting is looked up in.
type sources struct {
	flags    flagValues
	environ  map[string]string
	file     map[string]string
	fileName string
}

// readSources reads the files. Its error still comes with usable sources, so
// that everything else that is wrong can be said too.
func readSources(flags flagValues, environ []string) (sources, error) {
	src := sources{flags: flags, environ: map[string]string{}, fileName: flags.env}
	for _, entry := range environ {
		name, text, ok := strings.Cut(entry, "=")
		if _, seen := src.environ[name]; ok && !seen { // the first wins, as for os.Getenv
			src.environ[name] = text
		}
	}
	var errEnv error
	src.file, errEnv = readEnvFile(flags.env, flags.given["env"])
	return src, errors.Join(errEnv, refuseYAML(flags))
}

// lookup returns the setting of that name from the source that wins.
func (s sources) lookup(name string) value {
	if name == "WEIR_ADDR" && s.flags.given["addr"] {
		return value{text: s.flags.addr, found: true, label: "-addr"}
	}
	if text, ok := s.environ[name]; ok {
		return value{text: strings.TrimSpace(text), found: true, label: name}
	}
	if text, ok := s.file[name]; ok {
		return value{
			text: strings.TrimSpace(text), found: true, file: true,
			label: name, from: " from " + s.fileName,
		}
	}
	return value{label: name}
}

// given reports whether the name is set to something.
func (s sources) given(name string) bool { return s.lookup(name).text != "" }

// readEnvFile reads an environment file. Only one that was asked for must be
// there. The error never quotes the file: any line may hold a secret.
func readEnvFile(name string, explicit bool) (map[string]string, error) {
	if name == "" {
		return nil, errors.New("-env: got an empty name; takes a file name, for example -env=.env")
	}
	file, err := os.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("-env: the environment file can't be read: %w", err)
	}
	defer file.Close() // only read: closing it can't lose anything
	data, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	if err != nil {
		return nil, fmt.Errorf("-env: the environment file can't be read: %w", err)
	}
	if len(data) > maxEnvFile {
		return nil, fmt.Errorf("-env: %s is over %d KiB, too large for an environment file", name, maxEnvFile>>10)
	}
	vars, err := parseEnv(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return vars, nil
}

// parseEnv reads the text of an environment file. godotenv's errors quote the
// rest of the file, secrets included, so they are replaced by the number of
// the line where the statement that fails begins.
func parseEnv(data []byte) (map[string]string, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // editors on Windows write a byte order mark
	// Without a newline at its end, godotenv takes a last line that is no
	// assignment for the value of a variable without a name.
	data = append(bytes.TrimRight(data, "\n"), '\n')
	vars, err := godotenv.UnmarshalBytes(data)
	if err == nil {
		return vars, nil
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	good := len(lines) - 1
	for good > 0 {
		if _, err := godotenv.UnmarshalBytes(bytes.Join(lines[:good], nil)); err == nil {
			break
		}
		good--
	}
	for good < len(lines)-1 && len(bytes.TrimSpace(lines[good])) == 0 {
		good++
	}
	return nil, fmt.Errorf("line %d is not NAME=value, or a quote in it is never closed (the line is not shown, it may hold a secret)", good+1)
}

// refuseYAML is the error for a weir.yaml, which this version can't read.
// Ignoring it would drop the limits and aliases it sets.
func refuseYAML(flags flagValues) error {
	if flags.given["config"] {
		return fmt.Errorf("-config: got %s, but YAML files are not built in this version; use environment variables, .env.example lists them", quote(flags.yaml))
	}
	if _, err := os.Stat(defaultYAMLFile); err == nil {
		return fmt.Errorf("%s is present, but YAML files are not built in this version; move it away and use environment variables, .env.example lists them", defaultYAMLFile)
	}
	return nil
}
