<?php
// What Debian's wp-config.php reads: the site, by environment.
$env = static function (string $name, string $default = ''): string {
    $value = getenv($name);
    return $value === false || $value === '' ? $default : $value;
};

define('DB_NAME', $env('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_USER', $env('WORDPRESS_DB_USER', 'wordpress'));
define('DB_PASSWORD', $env('WORDPRESS_DB_PASSWORD'));
define('DB_HOST', $env('WORDPRESS_DB_HOST', 'localhost'));
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');

// The same in every container of a site, or the login of one is refused by the next.
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
          'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $name) {
    define($name, hash('sha512', $name . DB_NAME . DB_PASSWORD));
}

// WordPress itself never looks at forwarded headers.
if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') {
    $_SERVER['HTTPS'] = 'on';
}
define('WP_HOME', $env('WORDPRESS_CACHE_HOME', 'http://localhost'));
define('WP_SITEURL', WP_HOME);

// There is no outside: no update checks, no requests to itself, no installing.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_AUTO_UPDATE_CORE', false);
define('DISALLOW_FILE_MODS', true);
unset($env, $name);
