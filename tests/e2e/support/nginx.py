"""Debian's nginx as a backend: files of known content, its own 413, its echo module; with a certificate also above TLS."""

import os

from . import content
from .ports import free
from .process import Child, until
from .proxy import plain_get, tool

CONFIG = """
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
{user}daemon off; pid {folder}/nginx.pid; worker_processes 1; error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; root {folder}/files; default_type application/octet-stream; sendfile on; keepalive_requests 100000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5; client_max_body_size 200m;
  server {{
    listen 127.0.0.1:{port} backlog=1024;{secured}
    location = /echo-request {{ echo_duplicate 1 $echo_client_request_headers; }}
    location = /length {{ echo_read_request_body; echo -n $content_length; }}
    location /limited {{ client_max_body_size 64k; echo_read_request_body; echo limited; }}
  }}
{more}
}}
"""

# One port that offers HTTP/2, one that does not.
SECURED = """
    listen 127.0.0.1:{h2_port} ssl http2; listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {cert}; ssl_certificate_key {key};"""


class Nginx:
    """One nginx over a folder of files named by their size; `more` are servers beside its own."""

    def __init__(self, folder, sizes=(1, 13_000, 14_000, 1 << 20, 100 << 20), files=None, more=""):
        self.port, self.h2_port, self.tls_port = free(), free(), free()
        secured = ""
        if files:
            secured = SECURED.format(cert=files[0], key=files[1], h2_port=self.h2_port, tls_port=self.tls_port)
        served = folder / "files"
        served.mkdir()
        folder.chmod(0o755)
        for size in sizes:
            with (served / str(size)).open("wb") as out:
                for part in content.pieces(size):
                    out.write(part)
        # Started by root, nginx would give the workers away to a user who may not read the test's folder.
        user = "user root; " if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=self.port, user=user, secured=secured, more=more))
        self.child = Child("nginx", [tool("nginx"), "-p", folder, "-c", folder / "nginx.conf"], folder)
        until(lambda: plain_get(f"http://127.0.0.1:{self.port}/1")[0] == 200, 10)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        return self.child.stop()
