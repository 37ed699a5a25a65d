package redislog

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// keys names what the store keeps. The prefix holds a hash tag, so that a
// cluster has all of it in one slot and a script can reach it.
type keys string

func (k keys) log(id string) string        { return string(k) + id + ":log" }  // the events; and the channel that carries them
func (k keys) meta(id string) string       { return string(k) + id + ":meta" } // what is known of a stream beside them
func (k keys) read(id string) string       { return string(k) + id + ":read" } // while a replica other than the producer's reads it
func (k keys) gone(id string) string       { return string(k) + "gone:" + id } // a deleted stream
func (k keys) claim(hash string) string    { return string(k) + "claim:" + hash }
func (k keys) owned(hash string) string    { return string(k) + "owned:" + hash } // an owner's streams
func (k keys) open(hash string) string     { return string(k) + "open:" + hash }  // those of them that run
func (k keys) running(token string) string { return string(k) + "running:" + token }
func (k keys) notices(token string) string { return string(k) + "notices:" + token } // ends that others wrote; and their channel
func (k keys) replicas() string            { return string(k) + "replicas" }         // token → when its lease lapses
func (k keys) pulse() string               { return string(k) + "pulse" }            // when anyone last looked for lapsed leases
func (k keys) born() string                { return string(k) + "born" }             // since when the server knows anything
func (k keys) secret() string              { return string(k) + "secret" }

// hash makes foreign bytes a part of a name. Their lengths go in, so that no
// two lists of parts are the same.
func hash(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func ownerHash(owner string) string      { return hash(owner) }
func claimHash(owner, key string) string { return hash(owner, key) }
