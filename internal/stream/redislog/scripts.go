package redislog

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"weir/internal/stream"
)

var (
	//go:embed common.lua
	commonLua string
	//go:embed create.lua
	createLua string
	//go:embed append.lua
	appendLua string
	//go:embed seal.lua
	sealLua string
	//go:embed delete.lua
	deleteLua string
	//go:embed book.lua
	bookLua string
	//go:embed renew.lua
	renewLua string
	//go:embed reap.lua
	reapLua string
)

// A script that only ends things runs when the server's memory is full, too:
// else a full server would keep its streams running for ever.
const (
	anyTime  = "#!lua\n"
	whenFull = "#!lua flags=allow-oom\n"
)

// All but append may be sent again when their answer was lost; append's sender
// does that itself, with what is to be appended by then.
var (
	createScript = rueidis.NewLuaScriptRetryable(anyTime + createLua)
	appendScript = rueidis.NewLuaScript(anyTime + appendLua)
	sealScript   = rueidis.NewLuaScriptRetryable(whenFull + commonLua + sealLua)
	deleteScript = rueidis.NewLuaScriptRetryable(whenFull + deleteLua)
	bookScript   = rueidis.NewLuaScriptRetryable(whenFull + bookLua)
	renewScript  = rueidis.NewLuaScriptRetryable(whenFull + renewLua)
	reapScript   = rueidis.NewLuaScriptRetryable(whenFull + commonLua + reapLua)
)

// run runs a script that answers with a word and what belongs to it.
func (s *Store) run(ctx context.Context, script *rueidis.Lua, keys, args []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := script.Exec(ctx, s.client, keys, args).AsStrSlice()
	if err == nil && len(answer) == 0 {
		err = errors.New("the script's answer is empty")
	}
	if err != nil {
		return nil, storeError(err)
	}
	return answer, nil
}

// storeError says in the terms of the contract why a call failed.
func storeError(err error) error {
	if answer, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(answer.Error(), "OOM") {
		return fmt.Errorf("%w: %w", stream.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", stream.ErrUnavailable, err)
}
