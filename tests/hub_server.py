"""A Hugging Face Hub of one machine: what huggingface_hub asks for, over HTTP, from memory.

It answers as the Hub does (statuses, headers, X-Error-Code), without Xet: set HF_HUB_DISABLE_XET.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

TOKEN = "hf_TestTokenThatNobodyMaySee"
LARGE = (".safetensors", ".png")  # kept outside Git on the Hub


@dataclass
class Repository:
    """The commits of a repository: for each the contents of its files."""

    private: bool = False
    gated: bool = False
    commits: dict = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict = field(default_factory=lambda: {"main": "0" * 40})

    def commit(self, branch, files):
        """Adds a commit to a branch and gives its name."""
        contents = {**self.commits[self.branches[branch]], **files}
        name = hashlib.sha1(repr(sorted(contents.items())).encode()).hexdigest()
        self.commits[name] = contents
        self.branches[branch] = name
        return name

    def resolve(self, revision):
        """The commit of a branch or of its own name; None if there is none."""
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None


class Hub:
    """The server in a thread: a context. ``requests`` has the method and the path of each."""

    def __init__(self):
        self.repositories, self.large_files, self.requests = {}, {}, []

    def __enter__(self):
        hub = self

        class Handler(Answers):
            """The answers of this hub."""

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Answers(BaseHTTPRequestHandler):
    """One request. Each method of ROUTES answers with a status, a body and headers."""

    hub: Hub
    NAME = r"(?P<name>[^/]+/[^/]+?)"
    ROUTES = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "where_to_put"),
        ("PUT", r"/large/(?P<digest>\w+)", "put"),
        ("POST", rf"/api/models/{NAME}/branch/(?P<branch>[^/]+)", "branch"),
        ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", rf"/api/models/{NAME}(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)", "tree"),
        ("GET|HEAD", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "content"),
    )

    def answer(self):
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        self.sent = self.read_body()
        for command, pattern, method in self.ROUTES:
            if re.fullmatch(command, self.command) and (found := re.fullmatch(pattern, path)):
                names = {k: v and unquote(v) for k, v in found.groupdict().items()}
                status, body, headers = getattr(self, method)(**names)
                break
        else:
            status, body, headers = self.refuse(404, "no such endpoint")
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *arguments):
        pass

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def refuse(self, status, message, code=""):
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        return status, {"error": message}, {k: v for k, v in headers.items() if v}

    # ---- who may do what -------------------------------------------------------------------

    @property
    def logged_in(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def may_write(self, name):
        """The refusal of a request that changes something, or None."""
        if "Authorization" not in self.headers:
            return self.refuse(401, "Invalid username or password.")
        if not self.logged_in:
            return self.refuse(401, "Invalid credentials in Authorization header")
        if not name.startswith("somebody/"):
            return self.refuse(403, "You don't have the rights to create a model there")
        return None

    def may_read(self, name, revision="main"):
        """The refusal of a request that reads a revision of a repository, or None."""
        repository = self.hub.repositories.get(name)
        if repository is None or repository.private and not self.logged_in:
            return self.refuse(401, "Repository not found", "RepoNotFound")
        if repository.resolve(revision) is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return None

    # ---- writing ---------------------------------------------------------------------------

    def create(self):
        asked = json.loads(self.sent)
        name = f"{asked['organization']}/{asked['name']}"
        if refusal := self.may_write(name):
            return refusal
        answer = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repositories:
            return 409, {**answer, "error": "You already created this model repo"}, {}
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(private))
        return 200, answer, {}

    def validate(self):
        card = json.loads(self.sent)["content"]
        if "license: [" not in card:
            return 200, {"warnings": [], "errors": []}, {}
        return 400, {"warnings": [], "errors": [{"message": '"license" must be a string'}]}, {}

    def preupload(self, name, revision):
        if refusal := self.may_write(name) or self.may_read(name, revision):
            return refusal
        kinds = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.sent)["files"]
        ]
        return 200, {"files": kinds}, {}

    def where_to_put(self, name):
        if refusal := self.may_write(name):
            return refusal
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.url}/large/{o['oid']}"}}}
            for o in json.loads(self.sent)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def put(self, digest):
        if hashlib.sha256(self.sent).hexdigest() != digest:
            return self.refuse(400, "the content has another hash")
        self.hub.large_files[digest] = self.sent
        return 200, b"", {"ETag": digest}

    def branch(self, name, branch):
        if refusal := self.may_write(name):
            return refusal
        branches = self.hub.repositories[name].branches
        if branch in branches:
            return self.refuse(409, f"Reference already exists: {branch}")
        branches[branch] = branches["main"]
        return 201, {}, {}

    def commit(self, name, revision):
        if refusal := self.may_write(name) or self.may_read(name, revision):
            return refusal
        files = {}
        for line in self.sent.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
        commit = self.hub.repositories[name].commit(revision, files)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        return 200, {"commitUrl": url, "commitOid": commit, "success": True}, {}

    # ---- reading ---------------------------------------------------------------------------

    def info(self, name, revision=None):
        if refusal := self.may_read(name, revision or "main"):
            return refusal
        repository = self.hub.repositories[name]
        commit = repository.resolve(revision or "main")
        files = [{"rfilename": path} for path in repository.commits[commit]]
        known = {"id": name, "sha": commit, "private": repository.private, "siblings": files}
        return 200, {**known, "gated": "auto" if repository.gated else False}, {}

    def tree(self, name, revision):
        if refusal := self.may_read(name, revision):
            return refusal
        repository = self.hub.repositories[name]
        contents = repository.commits[repository.resolve(revision)]
        files = [
            {"type": "file", "path": path, "size": len(content), "oid": git_name(content)}
            for path, content in contents.items()
        ]
        return 200, files, {}

    def content(self, name, revision, file):
        if refusal := self.may_read(name, revision):
            return refusal
        repository = self.hub.repositories[name]
        if repository.gated and not self.logged_in:
            return self.refuse(401, f"Access to model {name} is restricted", "GatedRepo")
        commit = repository.resolve(revision)
        if (content := repository.commits[commit].get(file)) is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        return 200, content, {"X-Repo-Commit": commit, "ETag": f'"{git_name(content)}"'}


def git_name(content):
    """The name that Git gives to a file of this content."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def use(hub, folder, patch, **more):
    """Makes huggingface_hub of this process use a hub, and an empty cache in a folder."""
    home = folder / "home"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        **more,
    }.items():
        patch.setattr(constants, name, value)
        if hasattr(file_download, name):  # huggingface_hub 0.34 copies it
            patch.setattr(file_download, name, value)
    getattr(_http, "reset_sessions", lambda: None)()  # 0.34: a session remembers to be offline
