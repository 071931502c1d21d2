// Copyright (c) the restorepoint.core authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// S3 is an object store for tests, in memory, on a free port of this machine: the server of `rclone serve s3`.
//
// It refuses requests that are not signed with its key (Signature Version 4), which the environment names as clients of
// S3 do. It prints its address when it listens, and ends with its standard input. Built by tools/s3.py.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// memory keeps objects in memory. Unlike s3mem it takes an empty delimiter, which the client in restic sends, for none,
// as S3 does.
type memory struct{ *s3mem.Backend }

// ListBucket lists the objects of a bucket.
func (m memory) ListBucket(
	ctx context.Context, name string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage,
) (*gofakes3.ObjectList, error) {
	if prefix != nil && prefix.Delimiter == "" {
		prefix.HasDelimiter = false
	}
	return m.Backend.ListBucket(ctx, name, prefix, page)
}

func main() {
	key, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if key == "" || secret == "" {
		log.Fatal("it needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		// Whoever started it has ended.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	store := gofakes3.New(memory{s3mem.New()}, gofakes3.WithV4Auth(map[string]string{key: secret}))
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, store.Server()))
}
